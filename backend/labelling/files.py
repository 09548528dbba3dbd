"""Labelling configs and class names that people keep in files."""

from __future__ import annotations

from pathlib import Path

from worker.errors import LabellingError


def read_text(file: Path) -> str:
    """A text file, with or without a byte order mark. Raises LabellingError for any other encoding."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LabellingError(f"{file} is not UTF-8: save it in this encoding") from None
    except OSError as error:
        raise LabellingError(f"{file} cannot be read ({error.strerror})") from None
