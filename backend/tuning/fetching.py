"""Photos of one run of tuning: each is fetched once, though maps and labels are both learned from it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.contract import digest

SPOOL = 512 << 20
"""Bytes that are kept on disk until the run ends; what comes after them is fetched again where it is needed."""


class Fetched:
    """Photos by address. Use as a context manager: what is kept goes at its end."""

    def __init__(self, fetch: Callable[[str], bytes], *, limit: int = SPOOL) -> None:
        """`fetch` gives the bytes of an address, and may raise ImageError."""
        self._fetch = fetch
        self._left = limit
        self._spool = tempfile.TemporaryDirectory(prefix="boxlift-tuning-")

    def get(self, address: str) -> bytes:
        """The photo's bytes. Raises ImageError where it cannot be had."""
        file = Path(self._spool.name) / digest(address, 32)
        if file.exists():
            return file.read_bytes()
        data = self._fetch(address)
        if len(data) <= self._left:
            file.write_bytes(data)
            self._left -= len(data)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.cleanup()
