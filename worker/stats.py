"""Counters that all workers add to, in one Redis hash: what /metrics and `boxlift status` show.

jobs:<queue>:<outcome>      finished, failed, retried, lost
images, images:failed, busy images through the network, images that could not be used, seconds computing
latency:<queue>:<bound>     finished jobs that took at most so many seconds from enqueueing (cumulative)
latency:<queue>:sum, :count
"""

from __future__ import annotations

import json
import time
from collections import Counter

import redis

from worker.contract import FAILURES_KEPT, FAILURES_KEY, LATENCY_BOUNDS, STATS_KEY, Request


class Stats:
    """Collects while a batch runs and adds to Redis in one go; nothing is lost if Redis is away for a while."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, float] = {}
        self._problems: list[str] = []

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

    def problem(self, request: Request, job: str, reason: str) -> None:
        """Something about a task is wrong for good, and a person should see it."""
        entry = {"at": time.time(), "project": request.project, "task": request.task, "job": job, "reason": reason}
        self._problems.append(json.dumps(entry))

    def flush(self) -> None:
        """Write what has been collected."""
        if not self._counts and not self._sums and not self._problems:
            return
        pipe = self._client.pipeline(transaction=True)
        if self._problems:
            pipe.lpush(FAILURES_KEY, *self._problems)
            pipe.ltrim(FAILURES_KEY, 0, FAILURES_KEPT - 1)
        for name, count in self._counts.items():
            pipe.hincrby(STATS_KEY, name, count)
        for name, amount in self._sums.items():
            pipe.hincrbyfloat(STATS_KEY, name, amount)
        pipe.execute()
        self._counts.clear()
        self._sums.clear()
        self._problems.clear()
