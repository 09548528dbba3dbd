"""Maps on disk, so that learning again from the same photos needs neither the network nor the photos.

    maps/<version>/index.json            address and its server → content
    maps/<version>/ab/abcdef….npz        logits, and the maps of one class, by the photo's content

An entry is some 20 kB. What was used least recently goes first where the folder would grow over its limit.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.learning.maps import Floats, Maps

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

LIMIT = 1 << 30
"""Bytes of all versions together: maps of some 50,000 photos."""
_ABANDONED = 3600.0
"""Seconds after which what was never finished is nobody's."""

Array = npt.NDArray[Any]


def content_digest(data: bytes) -> str:
    """The name of a photo's content."""
    return hashlib.sha256(data).hexdigest()[:32]


class MapCache:
    """Maps of one model version, under `folder`/maps. Any number of processes may read and write at a time."""

    def __init__(self, folder: Path, version: str, *, server: str = "", limit: int = LIMIT) -> None:
        """`server` is whose addresses without a host are: the same path elsewhere is another photo."""
        self._server = server.rstrip("/")
        self._root = folder / "maps"
        self._folder = self._root / version
        self._limit = limit
        self._index = self._folder / "index.json"
        self._contents = self._read()
        self._seen: dict[str, str] = {}

    def _read(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            read = json.loads(self._index.read_text(encoding="utf-8"))
            if isinstance(read, dict):
                return {str(address): str(content) for address, content in read.items()}
        return {}

    def find(self, address: str, classes: Iterable[int] | None) -> Maps | None:
        """The maps (of one photo) of the best class that competes; None where they were never computed.

        `address` is one that always means the same photo.
        """
        content = self.content(address)
        return None if content is None else self.look_up(content, classes)

    def look_up(self, content: str, classes: Iterable[int] | None) -> Maps | None:
        """As `find`, for the `content_digest` of a photo."""
        file = self._file(content)
        try:
            maps = Maps.load(file)
        except _UNREADABLE:
            return None  # never there, taken away just now, or cut off by a crash: it is computed again
        if not len(maps) or int(maps.targets[0]) != best_class(maps.logits[0], classes):
            return None
        with contextlib.suppress(OSError):
            os.utime(file)
        return maps

    def keep(self, address: str, content: str, maps: Maps) -> None:
        """Remember the maps of one photo."""
        file = self._file(content)
        aside = file.with_suffix(f".{os.getpid()}.part")
        maps.save(aside)
        aside.replace(file)
        self.saw(address, content)

    def content(self, address: str) -> str | None:
        """The name of the content that was last seen at an address."""
        return self._contents.get(self._short(address))

    def saw(self, address: str, content: str) -> None:
        """Remember what is at an address."""
        self._contents[self._short(address)] = self._seen[self._short(address)] = content

    def arrays(self, name: str) -> dict[str, Array] | None:
        """Further arrays that were kept under a name; None where there are none."""
        file = self._file(name)
        try:
            with file.open("rb") as stream, np.load(stream) as stored:
                found = {key: stored[key] for key in stored.files}
        except _UNREADABLE:
            return None
        with contextlib.suppress(OSError):
            os.utime(file)
        return found

    def keep_arrays(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Remember arrays of numbers or texts under a name (letters and digits)."""
        file = self._file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}.part")
        with aside.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        aside.replace(file)

    def close(self) -> None:
        """Write the addresses down that were seen, and keep the folder within its limit."""
        if not self._seen:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._contents = self._read() | self._seen  # with what others have seen meanwhile
            aside = self._index.with_suffix(f".{os.getpid()}.part")
            aside.write_text(json.dumps(self._contents), encoding="utf-8")
            aside.replace(self._index)
        self._seen = {}
        self._shrink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes this index meanwhile."""
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _shrink(self) -> None:
        there = []
        for file in self._root.rglob("*.part"):  # of processes that were killed while they wrote
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < time.time() - _ABANDONED:
                    file.unlink()
        for file in self._root.rglob("*.npz"):
            with contextlib.suppress(OSError):
                stat = file.stat()
                there.append((stat.st_mtime, stat.st_size, file))
        left = sum(size for _, size, _ in there)
        for _, size, file in sorted(there):
            if left <= self._limit:
                return
            file.unlink(missing_ok=True)
            left -= size

    def _short(self, address: str) -> str:
        return hashlib.sha256(f"{self._server} {address}".encode()).hexdigest()[:32]

    def _file(self, content: str) -> Path:
        return self._folder / content[:2] / f"{content}.npz"


def best_class(logits: Floats, classes: Iterable[int] | None) -> int:
    """The class with the highest of the logits (C,) among those that compete."""
    if classes is None:
        return int(logits.argmax())
    some = np.array(sorted(classes), dtype=int)
    return int(some[logits[some].argmax()])
