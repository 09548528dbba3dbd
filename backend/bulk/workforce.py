"""The queue and workers that bulk work runs on: those that are there, or else some for as long as it takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis

from backend.demo.processes import Child, ProcessError, base_environment
from backend.queueing import Jobs, connect, live_workers, talking
from backend.redis_server import RedisServer
from backend.settings import Settings
from worker.contract import MODEL_KEY

START_SECONDS = 600.0
"""Patience for a worker of our own: it may have to download its weights."""
_KEEP = ("XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_PREFIXES = ("BOXLIFT_", "LABEL_STUDIO_")


@dataclass(frozen=True)
class Hire:
    """What workers of our own are started with, should they be needed."""

    network: str = ""
    weights: str = ""
    device: str = ""
    processes: int = 1
    batch: int = 8
    loaders: int = 4

    def arguments(self) -> list[str]:
        """Of `boxlift worker`. Whoever asked for the work delivers it, too."""
        given = {"network": self.network, "weights": self.weights, "device": self.device}
        numbers = {"processes": self.processes, "batch": self.batch, "loaders": self.loaders}
        options = {
            name: value for name, value in (given | {n: str(v) for n, v in numbers.items()}).items() if value
        }
        return [
            "worker",
            "--no-delivery",
            "--no-tuner",
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]


@dataclass(frozen=True)
class Workforce:
    """A queue with workers that answer."""

    settings: Settings
    """With the address of this Redis."""
    client: redis.Redis
    jobs: Jobs
    own: Child | None
    """The workers that were started for this; None where others were there."""

    def check(self) -> None:
        """Raise ProcessError, with the end of its log, if a worker of ours has ended."""
        if self.own is not None:
            self.own.check()


@contextmanager
def workforce(
    settings: Settings,
    hire: Hire,
    *,
    roots: Sequence[Path] = (),
    say: Callable[[str], object] = lambda text: None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Workforce]:
    """The workers on REDIS_URL; where none is alive, some of our own until the end, which may read `roots`.

    Without REDIS_URL in the environment there is a Redis of our own as well. Raises QueueError where Redis cannot
    be reached, ProcessError where our workers do not start.
    """
    with ExitStack() as stack:
        if not any(environ.get(name, "").strip() for name in ("REDIS_URL", "REDIS_URL_FILE")):
            settings = replace(settings, redis_url=stack.enter_context(RedisServer()).url)
        client = connect(settings.redis_url)
        stack.callback(client.close)
        with talking():
            there = live_workers(client).count
        own = None
        if not there:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="boxlift-worker-")))
            say("No worker is alive: starting one")
            with talking():
                client.delete(MODEL_KEY)  # what a worker of an earlier time announced
            own = stack.enter_context(_worker(settings, hire, roots, folder, environ))
            own.wait_until(lambda: bool(live_workers(client).count), seconds=START_SECONDS)
        yield Workforce(settings, client, Jobs.of(client, settings), own)


def _worker(
    settings: Settings, hire: Hire, roots: Sequence[Path], folder: Path, environ: Mapping[str, str]
) -> Child:
    import sys

    ours = {name: value for name, value in environ.items() if name.startswith(_PREFIXES)}
    folders = os.pathsep.join(map(str, dict.fromkeys((*settings.image_roots, *roots))))
    env = base_environment(keep=_KEEP) | ours | {"REDIS_URL": settings.redis_url, "BOXLIFT_IMAGE_ROOTS": folders}
    command = [sys.executable, "-m", "backend.cli", *hire.arguments()]
    return Child("the worker", command, log=folder / "worker.log", env=env, cwd=folder)


__all__ = ["Hire", "ProcessError", "Workforce", "workforce"]
