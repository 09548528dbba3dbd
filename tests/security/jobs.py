"""Jobs and results that somebody with access to Redis could write, so that a process runs what they like."""

from __future__ import annotations

import base64
import contextlib
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.serializers import DefaultSerializer, JSONSerializer

from backend import queueing
from backend.redis_server import RedisServer
from worker.contract import BULK, LOCALIZE, Detection, Model
from worker.images import Photo
from worker.jobs import Bench
from worker.main import BatchWorker

from .attack import Attack, Scene
from .files import Code


class NoNetwork:
    """A localizer that is never asked: no job here is one of Boxlift's."""

    model = Model("boxlift-none-0", "none", ("cat",))

    def localize(self, images: Sequence[Photo], **options: Any) -> list[list[Detection]]:
        raise AssertionError("a forged job reached the network")


def ours(client: redis.Redis, serializer: Any) -> None:
    """Boxlift's own worker, until the queues are empty."""
    BatchWorker(client, Bench(NoNetwork()), name="ours", burst=True).work()


def stock(client: redis.Redis, serializer: Any) -> None:
    """RQ's own worker, which runs what a job names."""
    SimpleWorker(
        [Queue(BULK, connection=client, serializer=serializer)], connection=client, serializer=serializer
    ).work(burst=True)


WORKER: Callable[[redis.Redis, Any], None] = ours


def _forged(function: str, made: Callable[[Path], Any], serializer: Any) -> Callable[[Scene], bool]:
    def run(scene: Scene) -> bool:
        target = scene.folder / "made"
        with RedisServer() as server, redis.Redis.from_url(server.url) as client:
            queue = Queue(BULK, connection=client, serializer=serializer)
            job = queue.enqueue(function, made(target))
            WORKER(client, serializer)
            assert not queue.job_ids, "the job was not taken: nothing was tried"
            assert client.exists(f"rq:job:{job.id}")
        return target.exists()

    return run


def _by_stock_workers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(signal, "signal", lambda *some: None)  # its handlers would outlive it
    patch.setitem(globals(), "WORKER", stock)


def _forged_result(scene: Scene) -> bool:
    """A result in Redis that is a pickle: read by the backend, it would run."""
    target = scene.folder / "made"
    text = base64.b64encode(pickle.dumps(Code(target))).decode()
    fields = {b"type": b"1", b"return_value": text.encode(), b"created_at": b"2026-01-01T00:00:00.000000Z"}
    entry = [(f"{int(time.time() * 1000)}-0".encode(), fields)]
    with contextlib.suppress(Exception):  # whatever it is refused with
        queueing.read_outcome("job", entry, redis.Redis())
    return target.exists()


ATTACKS = [
    Attack("job that names os.mkdir", _forged("os.mkdir", str, JSONSerializer), _by_stock_workers),
    Attack(
        "job that names os.system",
        _forged("os.system", lambda path: f"mkdir '{path}'", JSONSerializer),
        _by_stock_workers,
    ),
    Attack(
        "job that names eval",
        _forged("builtins.eval", lambda path: f"__import__('os').mkdir({str(path)!r})", JSONSerializer),
        _by_stock_workers,
    ),
    Attack("job that is a pickle", _forged(LOCALIZE, Code, DefaultSerializer), _by_stock_workers),
    Attack(
        "result that is a pickle",
        _forged_result,
        lambda patch: patch.setattr(queueing, "JSONSerializer", DefaultSerializer),
    ),
]
