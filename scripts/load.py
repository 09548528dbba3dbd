"""Many clients at once on a backend whose worker is slow: what they are told, how long it takes, and what it costs.

    python scripts/load.py --clients 50 --seconds 300

Half of the clients ask /predict, one task after another, and half ask /health. Starts a backend, a Redis and a
slow worker of its own; `--url` takes a backend that runs. Exits with 1 where an answer is an error other than the
503 of a full queue, one in a hundred of /health takes longer than half a second, or memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
from live import CONFIG, live


class Load:
    """What many clients saw."""

    def __init__(self, url: str, photos: str) -> None:
        self.url = url
        self.photos = photos
        self.statuses: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {"/predict": [], "/health": []}

    async def run(self, clients: int, seconds: float) -> None:
        """Ask for `seconds`."""
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client("/predict" if number % 2 else "/health", number, deadline))

    async def _client(self, path: str, number: int, deadline: float) -> None:
        random_ = random.Random(number)  # noqa: S311 - nothing secret
        task = number * 1_000_000
        # As Label Studio does, each request has a connection of its own.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, timeout=60, limits=limits, trust_env=False) as client:
            while time.monotonic() < deadline:
                task += 1
                began = time.perf_counter()
                try:
                    if path == "/health":
                        answer = await client.get(path)
                    else:
                        answer = await client.post(path, json=body(task, self.photos))
                    self.statuses[f"{path} {answer.status_code}"] += 1
                except httpx.HTTPError as error:
                    self.statuses[f"{path} {type(error).__name__}"] += 1
                self.seconds[path].append(time.perf_counter() - began)
                await asyncio.sleep(random_.uniform(0.0, 0.2))

    def errors(self) -> list[str]:
        """Answers that are none of the documented ones."""
        return [name for name in self.statuses if name.split()[1] not in ("200", "503")]

    def quantile(self, path: str, share: float) -> float:
        """Seconds that this share of the answers took at most."""
        ordered = sorted(self.seconds[path])
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def report(self) -> dict[str, Any]:
        """Everything, for people and for JSON."""
        names = ((0.5, "p50"), (0.99, "p99"), (1.0, "max"))
        times = {path: {name: round(self.quantile(path, q), 3) for q, name in names} for path in self.seconds}
        return {"answers": dict(self.statuses), "seconds": times}


def body(task: int, photos: str) -> dict[str, Any]:
    """A request as Label Studio sends it when somebody opens a task."""
    data = {"image": f"{photos}/{task}.png"}
    return {"tasks": [{"id": task, "data": data}], "project": "5.1", "label_config": CONFIG, "params": {}}


async def watched(load: Load, process: psutil.Process | None, clients: int, seconds: float) -> list[float]:
    """Run the load and look at the backend's memory twenty times. Returns megabytes."""
    running = asyncio.create_task(load.run(clients, seconds))
    sizes = []
    while not running.done():
        await asyncio.wait({running}, timeout=seconds / 20)
        if process is not None:
            sizes.append(process.memory_info().rss / 1e6)
    await running
    return sizes


@contextlib.contextmanager
def target(url: str, slow: float, limit: int) -> Iterator[tuple[str, str, psutil.Process | None]]:
    """A backend that runs, or one of our own."""
    if url:
        yield url, "http://127.0.0.1:9", None
        return
    with live(seconds=slow, BOXLIFT_QUEUE_LIMIT=str(limit)) as started:
        yield started.url, started.photos, psutil.Process(started.backend.pid)


def main() -> None:
    """Read the command line, ask, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--slow", type=float, default=3.0, help="seconds that the worker takes for an image")
    parser.add_argument(
        "--limit", type=int, default=5000, help="BOXLIFT_QUEUE_LIMIT: above it /predict answers 503"
    )
    parser.add_argument("--url", default="", help="a backend that runs already")
    parser.add_argument(
        "--slowest", type=float, default=0.5, help="seconds that 99 of 100 answers of /health may take"
    )
    given = parser.parse_args()
    with target(given.url, given.slow, given.limit) as (url, photos, process):
        load = Load(url, photos)
        sizes = asyncio.run(watched(load, process, given.clients, given.seconds))
    half = sizes[len(sizes) // 2] if sizes else 0.0
    print(json.dumps(load.report() | {"memory_mb": [round(size, 1) for size in sizes]}, indent=2))
    slow = load.quantile("/health", 0.99)
    problems = [f"not documented: {name}" for name in load.errors()]
    problems += [f"/health took {slow:.2f} s"] if slow > given.slowest else []
    problems += (
        [f"memory grew from {half:.0f} to {sizes[-1]:.0f} MB"] if sizes and sizes[-1] > half * 1.1 + 5 else []
    )
    raise SystemExit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
