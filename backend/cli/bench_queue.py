"""`boxlift bench queue`: what the queue costs, measured with real processes on a Redis of its own."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import redis

from backend.queueing import Jobs, connect
from backend.redis_server import RedisServer
from backend.settings import Settings
from worker.contract import ImageRef, Plan, Request, outbox_key
from worker.errors import BoxliftError

PROJECT = 1
_TURNS = 3
REQUEST = 1000
"""Tasks in one /predict request, as Label Studio sends them."""


@click.command("queue")
@click.option("--tasks", type=click.IntRange(100), default=10_000, show_default=True, help="Bulk tasks to enqueue.")
@click.option(
    "--images", type=click.IntRange(10), default=2_000, show_default=True, help="Of them, run to their end."
)
@click.option("--milliseconds", default=1.0, show_default=True, help="Time an image takes in the stand-in network.")
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True, help="Workers with the stand-in."
)
@click.option(
    "--network",
    default="efficientnet_lite0",
    show_default=True,
    help="Network that is measured through the queue and without it.",
)
@click.option("--real-images", type=click.IntRange(8), default=64, show_default=True, help="Images for --network.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Most images in a batch.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def command(
    tasks: int,
    images: int,
    milliseconds: float,
    processes: int,
    network: str,
    real_images: int,
    batch: int,
    as_json: bool,
) -> None:
    """Measure enqueueing, the queue's own cost for each image, and how long an urgent task waits.

    Everything runs on an embedded Redis; the queue of REDIS_URL is not touched.
    """
    figures: dict[str, Any] = {}
    with RedisServer() as server:
        figures |= _enqueue(server.url, tasks)
    with RedisServer() as server:
        figures |= _overhead(server.url, images, milliseconds / 1000, processes, batch)
    with RedisServer() as server:
        figures |= _real(server.url, network, real_images, batch)
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        click.echo(f"{name:32} {value:,.3f}" if isinstance(value, float) else f"{name:32} {value}")


def _enqueue(url: str, tasks: int) -> dict[str, Any]:
    client = connect(url)
    jobs = Jobs(client)
    plan = jobs.put_plan(Plan("<View/>"))
    before = client.info("memory")["used_memory"]
    took = []
    for first in range(0, tasks, REQUEST):
        address = "http://localhost:8080/data/upload/1/0a1b2c3d-photo-%d.jpg"
        part = [
            Request(PROJECT, task, "boxlift-bench", plan, (ImageRef(address % task, "image"),))
            for task in range(first, min(first + REQUEST, tasks))
        ]
        start = time.perf_counter()
        jobs.submit(part, interactive=False)
        took.append(time.perf_counter() - start)
    used = client.info("memory")["used_memory"] - before
    client.close()
    return {
        "tasks": tasks,
        "enqueue_per_s": tasks / sum(took),
        "slowest_request_s": max(took),
        "bytes_per_job": round(used / tasks),
    }


def _overhead(url: str, images: int, seconds: float, processes: int, batch: int) -> dict[str, Any]:
    from worker.bench.queue import STUB, run_stub

    client = connect(url)
    jobs = Jobs(client)
    with workers(run_stub, [(url, seconds, batch)] * processes):
        plan = jobs.put_plan(Plan("<View/>"))
        idle = [_urgent(jobs, _request(task, _picture(), STUB.version, plan)) for task in range(20)]
        bulk = [_request(task, _picture(), STUB.version, plan) for task in range(1000, 1000 + images)]
        start = time.perf_counter()
        jobs.submit(bulk, interactive=False)
        _wait(client, images)
        wall = time.perf_counter() - start
        more = [_request(task, _picture(), STUB.version, plan) for task in range(10**6, 10**6 + images)]
        jobs.submit(more, interactive=False)
        busy = [_urgent(jobs, _request(task, _picture(), STUB.version, plan)) for task in range(100, 110)]
        _wait(client, 2 * images)
    client.close()
    return {
        "images": images,
        "workers": processes,
        "stub_images_per_s": images / wall,
        "overhead_ms_per_image": 1000 * (wall * processes / images - seconds),
        "idle_latency_ms": 1000 * statistics.median(idle),
        "busy_latency_ms": 1000 * statistics.median(busy),
        "busy_latency_worst_ms": 1000 * max(busy),
    }


def _real(url: str, network: str, images: int, batch: int) -> dict[str, Any]:
    from backend.cli.worker import Start, run_child
    from backend.demo.photos import FOLDER

    files = sorted(path for path in FOLDER.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    settings = replace(Settings.from_env(), redis_url=url, network=network, image_roots=(FOLDER,), studio_url="")
    start = Start(settings, settings.device, "", burst=False, batch=batch, loaders=4)
    client = connect(url)
    jobs = Jobs(client)
    rates: list[float] = []
    through: list[float] = []
    with _engine(start, files, images, batch) as engine, workers(run_child, [(start,)]):
        model = jobs.model()
        assert model is not None  # noqa: S101 - announced before it says that it is ready
        plan = jobs.put_plan(Plan("<View/>"))
        _urgent(jobs, _request(0, str(files[0]), model.version, plan))  # caches and kernels
        # In turns, and the best of each: whatever else the machine does meanwhile meets both.
        for turn in range(1, _TURNS + 1):
            engine.send("pass")
            rates.append(engine.recv()[1])
            numbers = range(turn * 10**6, turn * 10**6 + images)
            bulk = [_request(n, str(files[n % len(files)]), model.version, plan) for n in numbers]
            begun = time.perf_counter()
            jobs.submit(bulk, interactive=False)
            _wait(client, turn * images)
            through.append(images / (time.perf_counter() - begun))
    client.close()
    return {
        "network": network,
        "engine_images_per_s": max(rates),
        "queue_images_per_s": max(through),
        "rate_vs_engine": max(through) / max(rates),
    }


@contextmanager
def _engine(start: Any, files: Sequence[Path], images: int, batch: int) -> Iterator[Any]:
    """The other end of a process with a localizer and no queue. Raises BoxliftError with what it reports."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_engine_alone, args=(start, files, images, batch, theirs))
    process.start()
    theirs.close()
    try:
        kind, text = ours.recv()
        if kind == "error":
            raise BoxliftError(text)
        yield ours
    finally:
        ours.close()
        process.join()


def _engine_alone(start: Any, files: Sequence[Path], images: int, batch: int, orders: Any) -> None:
    """In a process of its own, like a worker's: one pass for each order."""
    from backend.cli.worker import load
    from worker.bench.queue import Alone

    try:
        alone = Alone(load(start), files, images, batch)
    except BoxliftError as error:
        orders.send(("error", str(error)))
        return
    orders.send(("ready", ""))
    with contextlib.suppress(EOFError):
        while orders.recv():
            orders.send(("rate", alone.rate()))


@contextmanager
def workers(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Iterator[None]:
    """Worker processes that are ready, ended afterwards. Raises BoxliftError with what one of them reports."""
    context = multiprocessing.get_context("spawn")
    started = []
    try:
        for given in arguments:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=target, args=(*given, theirs))
            process.start()
            theirs.close()
            started.append((process, ours))
        for _, ours in started:
            kind, text = ours.recv()
            if kind == "error":
                raise BoxliftError(text)
        yield
    finally:
        for process, _ in started:
            process.terminate()
        for process, ours in started:
            process.join()
            ours.close()


def _urgent(jobs: Jobs, request: Request) -> float:
    """Seconds until somebody who waits has the answer."""
    start = time.perf_counter()
    if not jobs.submit([request], interactive=True, wait=120.0):
        raise BoxliftError("an urgent task was not answered within two minutes: see the worker's messages above")
    return time.perf_counter() - start


def _wait(client: redis.Redis, results: int) -> None:
    while client.hlen(outbox_key(PROJECT)) < results:
        time.sleep(0.005)


def _request(task: int, url: str, version: str, plan: str) -> Request:
    return Request(PROJECT, task, version, plan, (ImageRef(url, "image"),))


def _picture() -> str:
    """A small photo as a data: URI, so that decoding is part of what is measured and fetching is not."""
    from PIL import Image

    if not _PICTURE:
        buffer = io.BytesIO()
        Image.effect_noise((64, 48), 60).save(buffer, "JPEG")
        _PICTURE.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    return _PICTURE[0]


_PICTURE: list[str] = []
