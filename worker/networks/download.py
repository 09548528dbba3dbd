"""One file from the web into the cache folder: whole and checked, or not there at all."""

from __future__ import annotations

import contextlib
import http.client
import socket
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import torch.hub
from filelock import FileLock

from worker.errors import WeightsError

STALL_SECONDS = 60.0
"""A server that sends nothing for this long is given up."""


def download(url: str, path: Path, sha256: str, *, progress: bool = True) -> Path:
    """Download `url` to `path` and return `path`.

    The file is written beside `path` under another name, compared with `sha256` (the first hex digits), and
    moved into place only when it is right. Processes that want the same file wait for the first one's.
    Raises WeightsError that says what went wrong; nothing is left behind then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.is_file():
                _remove_leftovers(path)
                with _giving_up_after(STALL_SECONDS):
                    torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=progress)
    except urllib.error.HTTPError as error:
        error.close()
        raise WeightsError(f"{path.name} could not be downloaded: {url} answered {error.code}") from None
    except urllib.error.URLError as error:
        raise WeightsError(f"{path.name} could not be downloaded from {url}: {error.reason}") from None
    except TimeoutError:
        raise WeightsError(
            f"{path.name} could not be downloaded: {url} sent nothing for {STALL_SECONDS:.0f} s"
        ) from None
    except (RuntimeError, http.client.HTTPException):  # the hash, as torch.hub reports it; or a broken answer
        raise WeightsError(
            f"{path.name} arrived from {url} damaged or cut off (its SHA-256 does not start with {sha256}) "
            "and was thrown away; try again"
        ) from None
    except OSError as error:
        raise WeightsError(f"{path.name} could not be downloaded into {path.parent}: {error}") from None
    return path


def _remove_leftovers(path: Path) -> None:
    """Delete what a killed download left; the lock is held, so nobody is writing these."""
    for leftover in path.parent.glob(f"{path.name}.*.partial"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _giving_up_after(seconds: float) -> Iterator[None]:
    """torch.hub opens its connection without a time limit; this gives it one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
