"""Paths that lead out of the folders, files that are none, and servers that answer without end."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from worker.errors import BoxliftError, ImageError
from worker.images import FetchPolicy, fetch
from worker.images.deadline import Deadline
from worker.networks import weights

from .attack import INSIDE, Answer, Attack, Scene

fetching = sys.modules[fetch.__module__]
"""The module: the package has a function of the same name."""


def got(url: str, policy: FetchPolicy) -> bytes | None:
    """What an address gives, None where it gives an error of ours."""
    try:
        return fetch(url, policy)
    except ImageError:
        return None


PATHS = {
    "parent": "../secret",
    "parent of a folder": "cats/../../secret",
    "escaped parent": "%2e%2e/secret",
    "escaped slash": "..%2fsecret",
    "absolute": "{folder}/secret",
    "file address": "file://{folder}/secret",
    "file address of a host": "file://localhost{folder}/secret",
    "file address through the folder": "file://{folder}/photos/../secret",
    "symbolic link": "link",
    "symbolic link of a folder": "up/secret",
    "Label Studio's local files": "/data/local-files/?d=../secret",
    "Label Studio's local files, escaped": "/data/local-files/?d=%2e%2e%2fsecret",
    "folder whose name begins alike": "{folder}/photos-private/secret",
}


def _reads(path: str) -> Callable[[Scene], bool]:
    def run(scene: Scene) -> bool:
        root = scene.folder / "photos"
        for folder in (root / "cats", scene.folder / "photos-private"):
            folder.mkdir(parents=True)
        for secret in (scene.folder / "secret", scene.folder / "photos-private" / "secret"):
            secret.write_bytes(INSIDE)
        (root / "link").symlink_to(scene.folder / "secret")
        (root / "up").symlink_to(scene.folder)
        return got(path.format(folder=scene.folder), FetchPolicy(roots=(root,))) == INSIDE

    return run


def _anywhere(patch: pytest.MonkeyPatch) -> None:
    def there(path: Path, policy: FetchPolicy) -> Path | None:
        return path if path.is_file() else None

    patch.setattr(fetching, "_inside", there)


def _device(scene: Scene) -> bool:
    return got("null", FetchPolicy(roots=(Path(os.devnull).parent,))) is not None


def _large_file(scene: Scene) -> bool:
    (scene.folder / "large").write_bytes(bytes(5000))
    return got("large", FetchPolicy(roots=(scene.folder,), max_bytes=4999)) is not None


def _served(answer: Answer, **policy: Any) -> Callable[[Scene], bool]:
    def run(scene: Scene) -> bool:
        scene.victim.answers["/a"] = answer
        return got(f"http://127.0.0.1:{scene.port}/a", FetchPolicy(hosts=("127.0.0.1",), **policy)) is not None

    return run


def _drop_by_drop(*, in_headers: bool) -> Callable[[Scene], bool]:
    """Whether the victim could send all of it, four seconds long, although half a second was allowed."""

    def run(scene: Scene) -> bool:
        scene.victim.answers["/a"] = Answer(body=b"x" * 40, pause=0.1, parts=40, in_headers=in_headers)
        got(f"http://127.0.0.1:{scene.port}/a", FetchPolicy(hosts=("127.0.0.1",), timeout=0.5))
        return scene.victim.sent == ["/a"]

    return run


def _inflated(scene: Scene) -> bool:
    twice = gzip.compress(gzip.compress(bytes(64 << 20)))
    scene.victim.answers["/a"] = Answer(200, {"Content-Encoding": "gzip, gzip"}, twice, parts=1)
    tracemalloc.start()
    try:
        got(f"http://127.0.0.1:{scene.port}/a", FetchPolicy(hosts=("127.0.0.1",), max_bytes=1 << 20, timeout=30.0))
        return tracemalloc.get_traced_memory()[1] > 32 << 20
    finally:
        tracemalloc.stop()


class Code:
    """What a pickle may do when it is read: here, make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def _weights_with_code(scene: Scene) -> bool:
    file = scene.folder / "weights.pth"
    torch.save({"fc.weight": Code(scene.folder / "made")}, file)
    with contextlib.suppress(BoxliftError):
        weights.read_state(file)
    return (scene.folder / "made").exists()


def _load_code(patch: pytest.MonkeyPatch) -> None:
    load = torch.load
    patch.setattr(torch, "load", lambda *given, **options: load(*given, **options | {"weights_only": False}))


def _no_size_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fetching, "_within", lambda data, url, policy: data)
    patch.setattr(fetching, "_body", lambda response, *rest: response.read())


def _no_time_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Deadline, "limit", lambda self, timeout, late: timeout)


ATTACKS = [
    *(Attack(f"path: {name}", _reads(path), _anywhere) for name, path in PATHS.items()),
    Attack("device", _device, lambda patch: patch.setattr(fetching.stat, "S_ISREG", lambda mode: True)),
    Attack("large file", _large_file, _no_size_limit),
    Attack(
        "large data: URI",
        lambda scene: got("data:," + "a" * 5000, FetchPolicy(max_bytes=4999)) is not None,
        _no_size_limit,
    ),
    Attack("large answer", _served(Answer(body=bytes(5000)), max_bytes=4999), _no_size_limit),
    Attack("slow answer", _served(Answer(pause=0.1), timeout=0.5), _no_time_limit),
    Attack("answer drop by drop", _drop_by_drop(in_headers=False), _no_time_limit),
    Attack("headers drop by drop", _drop_by_drop(in_headers=True), _no_time_limit),
    Attack(
        "answer packed twice",
        _inflated,
        lambda patch: patch.setattr(fetching, "_ENCODINGS", {"gzip, gzip"}),
    ),
    Attack("weights with code in them", _weights_with_code, _load_code),
]
