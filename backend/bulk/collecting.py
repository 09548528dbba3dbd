"""Requests into the queue, never too many at once, and what becomes of each: followed without changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from rq.defaults import RQ_KEY_PREFIX as RQ

from backend.queueing import Jobs, live_workers, read_outcome, talking
from worker.contract import Request, Result
from worker.errors import QueueError, QueueFullError

WINDOW = 2000
"""Jobs of ours that wait at a time, at most; others' work is not far behind ours then."""
LOOKED_AT = 512
"""Jobs whose state is asked for in one look: asking is not free either."""
LOOK = 0.5
"""Seconds between two looks."""
PATIENCE = 300.0
"""Seconds without Redis, or with no worker alive, after which it is given up."""
_GONE_TWICE = "its job was taken out of the queue, twice: see whether somebody cancels them"


@dataclass(frozen=True)
class Outcome:
    """What became of one request: a result, or why there is none."""

    request: Request
    result: Result | None
    reason: str = ""


class Collector:
    """Runs requests through the queue and yields what becomes of each, in the order they end."""

    def __init__(
        self,
        jobs: Jobs,
        *,
        window: int = WINDOW,
        check: Callable[[], object] = lambda: None,
        idle: Callable[[str], object] = lambda text: None,
    ) -> None:
        """`check` is called between looks and may raise; `idle` is told, in words, what is waited for."""
        self._jobs = jobs
        self._window = max(1, window)
        self._check = check
        self._idle = idle
        self._pending: dict[str, Request] = {}
        self._again: set[str] = set()
        self._not_before = 0.0
        self._alive = time.monotonic()

    def run(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Each request's outcome, once. Raises QueueError where Redis or all workers stay away for minutes.

        What the queue had finished before (in an earlier run) is taken over: as an outcome, and into the outbox if
        it is for Label Studio.
        """
        todo = list({request.job_id: request for request in requests}.values())[::-1]
        while todo or self._pending:
            self._check()
            try:
                self._fill(todo)
                ended = self._ended()
                self._look_for_workers(bool(ended))
            except QueueFullError as error:
                self._not_before = time.monotonic() + min(30, error.retry_after)
                self._idle(str(error))
                continue
            except QueueError as error:
                self._patience(str(error))
                continue
            yield from ended
            if len(ended) < LOOKED_AT // 2:
                time.sleep(LOOK)

    def _fill(self, todo: list[Request]) -> None:
        room = self._window - len(self._pending)
        if not todo or room < self._window // 4 or time.monotonic() < self._not_before:
            return
        part = todo[-room:]
        known = self._jobs.submit(part, interactive=False)
        del todo[-room:]
        self._pending |= {request.job_id: request for request in reversed(part)}
        self._take_over(part, known)

    def _take_over(self, requests: Sequence[Request], known: Mapping[int, Result]) -> None:
        """What an earlier run had done already and nobody else delivers."""
        self._jobs.hand_over(known[r.task] for r in requests if r.push and r.task in known)

    def _ended(self) -> list[Outcome]:
        """Those of the pending that have ended, which are pending no longer."""
        looked = list(islice(self._pending, LOOKED_AT))
        with talking():
            pipe = self._jobs.client.pipeline(transaction=False)
            for job in looked:
                pipe.hmget(f"{RQ}:job:{job}", "status", "reason")
            states = dict(zip(looked, pipe.execute(), strict=True))
            finished = [job for job, (status, _) in states.items() if status == b"finished"]
            results = self._results(finished)
        outcomes = []
        for job, (status, reason) in states.items():
            request = self._pending[job]
            if status == b"finished" and job in results:
                outcomes.append(Outcome(request, results[job]))
            elif status == b"failed":
                outcomes.append(Outcome(request, None, (reason or b"it failed").decode(errors="replace")))
            elif status is None or status == b"finished":  # cancelled, expired, or Redis lost it
                if job in self._again:
                    outcomes.append(Outcome(request, None, _GONE_TWICE))
                else:
                    self._take_over([request], self._jobs.submit([request], interactive=False))
                    self._again.add(job)
        for outcome in outcomes:
            del self._pending[outcome.request.job_id]
        for job in looked:  # the others' turn next time
            if job in self._pending:
                self._pending[job] = self._pending.pop(job)
        return outcomes

    def _results(self, jobs: Sequence[str]) -> Mapping[str, Result]:
        pipe = self._jobs.client.pipeline(transaction=False)
        for job in jobs:
            pipe.xrevrange(f"{RQ}:results:{job}", count=1)
        found = zip(jobs, pipe.execute(), strict=True)
        read = {job: read_outcome(job, rows, self._jobs.client) for job, rows in found}
        return {job: result for job, result in read.items() if result is not None}

    def _look_for_workers(self, ended: bool) -> None:
        now = time.monotonic()
        if ended or now - self._alive < 10.0:
            self._alive = now if ended else self._alive
            return
        with talking():
            if live_workers(self._jobs.client).count:
                self._alive = now
                return
        self._patience("no worker is alive: start `boxlift worker`")

    def _patience(self, reason: str) -> None:
        """Wait a moment. Raises QueueError where that has been in vain for long."""
        if time.monotonic() - self._alive > PATIENCE:
            raise QueueError(f"given up after {PATIENCE:.0f} s: {reason}. What is done stays done: run it again")
        self._idle(reason)
        time.sleep(1.0)
