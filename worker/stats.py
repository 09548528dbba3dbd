"""Counters that all workers add to, in one Redis hash: what /metrics and `boxlift status` show.

jobs:<queue>:<outcome>      finished, failed, retried (all counted by `worker.scripts`), lost
images, images:failed, busy images through the network, images that could not be used, seconds computing
latency:<queue>:<bound>     finished jobs that took at most so many seconds from enqueueing (cumulative)
latency:<queue>:sum, :count
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import redis

from worker.contract import LATENCY_BOUNDS, STATS_KEY


class Stats:
    """Collects while a batch runs what only the worker knows, and adds it to Redis in one go. Nothing is lost if
    Redis is away for a while."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, float] = {}

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        self._counts[name] += count

    def total(self, name: str, amount: float) -> None:
        """Sum up."""
        self._sums[name] = self._sums.get(name, 0.0) + amount

    def latency(self, queue: str, seconds: float) -> None:
        """A job of `queue` is finished `seconds` after it was enqueued."""
        for bound in LATENCY_BOUNDS:
            if seconds <= bound:
                self.add(f"latency:{queue}:{bound:g}")
        self.add(f"latency:{queue}:count")
        self.total(f"latency:{queue}:sum", seconds)

    def flush(self) -> None:
        """Write what has been collected."""
        if not self._counts and not self._sums:
            return
        pipe = self._client.pipeline(transaction=True)
        for name, count in self._counts.items():
            pipe.hincrby(STATS_KEY, name, count)
        for name, amount in self._sums.items():
            pipe.hincrbyfloat(STATS_KEY, name, amount)
        pipe.execute()
        self._counts.clear()
        self._sums.clear()


class Pace:
    """Tasks a second that a worker really does, waiting for images and all: over the last minute, or since it had
    something to do. Safe between threads."""

    SPAN = 60.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._ended: deque[float] = deque()

    def busy(self, *, at: float | None = None) -> None:
        """There is something to do."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic() if at is None else at

    def idle(self) -> None:
        """There is nothing to do: how long that lasts says nothing about the pace."""
        with self._lock:
            self._since = None
            self._ended.clear()

    def ended(self, *, at: float | None = None) -> None:
        """A task is done, or has failed."""
        with self._lock:
            self._ended.append(time.monotonic() if at is None else at)

    def rate(self, *, at: float | None = None) -> float:
        """Tasks a second; 0 while nothing is known."""
        moment = time.monotonic() if at is None else at
        with self._lock:
            while self._ended and self._ended[0] < moment - self.SPAN:
                self._ended.popleft()
            if self._since is None or moment <= self._since:
                return 0.0
            return len(self._ended) / min(self.SPAN, moment - self._since)
