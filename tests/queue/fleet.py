"""Real workers on a real Redis, for tests that kill them."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import redis
from PIL import Image

from backend.queueing import Jobs, connect, live_workers
from backend.redis_server import RedisServer
from worker.contract import FAILURES_KEY, STATS_KEY, ImageRef, Plan, Request, Result, outbox_key

HERE = Path(__file__).parent
PATIENCE = 120.0
"""Seconds after which something that should happen counts as never happening: not a claim about speed."""
LONG = bool(os.environ.get("BOXLIFT_LONG_TESTS"))
"""Whether faults last as long as stated: docs/testing.md has both lengths of each."""
VERSION = "stub-1"
PROJECT = 7


@functools.cache
def photo(colour: tuple[int, int, int] = (200, 200, 200)) -> str:
    """A small picture as a data: URI: needs no server to come from."""
    import base64

    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for something; fails, naming it, where it does not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.02)


class Fleet:
    """A Redis, the backend's view of its queue, and any number of worker processes."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client: redis.Redis = connect(server.url)
        self.jobs = Jobs(self.client, timeout=20, retries=2)
        self.plan = self.jobs.put_plan(Plan("<View/>"))
        self._processes: list[subprocess.Popen[bytes]] = []

    def request(self, task: int, url: str | None = None, *, images: int = 1) -> Request:
        """A task with one picture, or more pages."""
        refs = tuple(ImageRef(url or photo(), "image", None if images == 1 else page) for page in range(images))
        return Request(PROJECT, task, VERSION, self.plan, refs)

    def enqueue(self, tasks: Iterable[int], url: str | None = None) -> list[Request]:
        """Bulk jobs."""
        requests = [self.request(task, url) for task in tasks]
        self.jobs.submit(requests, interactive=False)
        return requests

    def start(self, number: int = 1, **settings: Any) -> list[subprocess.Popen[bytes]]:
        """Start workers and wait until they take jobs."""
        before = live_workers(self.client).count
        command = [sys.executable, str(HERE / "stub_worker.py")]
        expected = before + number * max(1, settings.get("supervised", 0))
        started = [
            subprocess.Popen([*command, json.dumps({"url": self.server.url} | settings)]) for _ in range(number)
        ]
        self._processes += started
        until(lambda: live_workers(self.client).count >= expected, f"{expected} workers")
        return started

    def wait_for_all(self, requests: Iterable[Request]) -> dict[int, Result]:
        """The outbox, once it holds exactly the requests' tasks."""
        tasks = {request.task for request in requests}
        until(lambda: self.delivered_to() >= tasks, f"{len(tasks)} results; there are {len(self.delivered_to())}")
        assert self.delivered_to() == tasks
        return self.outbox()

    def delivered_to(self) -> set[int]:
        """Tasks in the outbox."""
        return {int(task) for task in self.client.hkeys(outbox_key(PROJECT))}

    def outbox(self) -> dict[int, Result]:
        """Results by task."""
        entries = self.client.hgetall(outbox_key(PROJECT))
        return {int(task): Result.from_dict(json.loads(text)) for task, text in entries.items()}

    def job(self, request: Request) -> dict[str, str]:
        """A job's hash, as text, without its data."""
        fields = self.client.hgetall(f"rq:job:{request.job_id}")
        return {
            name.decode(): value.decode() for name, value in fields.items() if name not in (b"data", b"exc_info")
        }

    def stats(self) -> dict[str, float]:
        """The workers' counters."""
        return {name.decode(): float(value) for name, value in self.client.hgetall(STATS_KEY).items()}

    def failures(self) -> list[dict[str, Any]]:
        """The visible list of what went wrong for good."""
        return [json.loads(entry) for entry in self.client.lrange(FAILURES_KEY, 0, -1)]

    def running(self) -> int:
        """Jobs that some worker holds."""
        return sum(self.client.zcard(f"rq:wip:{queue}") for queue in ("boxlift-interactive", "boxlift-bulk"))

    def nothing_left(self) -> bool:
        """No job waits, runs, or is stuck anywhere."""
        places = [
            f"rq:{kind}:boxlift-{queue}"
            for kind in ("queue", "wip", "scheduled")
            for queue in ("interactive", "bulk")
        ]
        places += [f"rq:queue:boxlift-{queue}:intermediate" for queue in ("interactive", "bulk")]
        return not any(self.client.exists(place) for place in places)

    def close(self) -> None:
        """End everything that was started."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.client.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """As the kernel does when memory runs out."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
