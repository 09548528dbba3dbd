"""Puts back what was lost on the way: jobs of workers that died, jobs whose pause is over, jobs in no place at all.

Every worker has a janitor and one at a time, by a lock in Redis, does the round.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX as RQ
from rq.results import Result as Outcome
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker_registration import clean_worker_registry

from worker import scripts
from worker.contract import (
    CLAIMED_KEY,
    CLAIMS_KEY,
    MODEL_KEY,
    OUTBOXES_KEY,
    PREFIX,
    RESULTS_KEPT,
    SCHEMA,
    STARTING_KEY,
    STATS_KEY,
    WORKERS_KEY,
    job_labels,
    outbox_key,
    tuned_key,
)

log = logging.getLogger("boxlift.janitor")

LOCK = PREFIX + "janitor"
SWEEP = 20.0
"""Seconds between two searches for jobs in no place, at least."""
_SHARE = 50
"""Times its own duration that a search is put off after it: it reads every job that Redis keeps."""

_SILENT = 300.0
"""Seconds after which a worker that says nothing is taken off the list."""


class Janitor:
    """One round is `tidy()`; `run` repeats it until `stop` is set. Survives any outage of Redis."""

    def __init__(
        self, client: redis.Redis, name: str, queues: Sequence[str], *, interval: float = 2.0, grace: float = 6.0
    ) -> None:
        self._client = client
        self._name = name
        self._queues = list(queues)
        self._interval = interval
        self._grace = grace
        self._due = client.register_script(scripts.DUE)
        self._expired = client.register_script(scripts.EXPIRED)
        self._fail = client.register_script(scripts.FAIL)
        self._stray = client.register_script(scripts.STRAY)
        # After an outage, leases have ended that their holders could not renew: they get the time to do so.
        self._judge_from = time.monotonic() + grace
        self._last = time.monotonic()
        self._next = time.monotonic() + SWEEP
        self._suspects: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Rounds until `stop` is set."""
        while not stop.wait(self._interval):
            try:
                self.tidy()
            except redis.RedisError as error:
                log.warning("no round: %s", error, extra={"event": "janitor-waits"})
            except Exception:  # whatever it is: without this thread nothing would be put back any more
                log.exception("a round failed", extra={"event": "janitor-failed"})

    def tidy(self) -> int:
        """One round, unless another worker does it. Returns how many jobs were put back or ended."""
        if not self._locked():
            self._seen()
            return 0
        moved = int(
            self._due(
                [CLAIMS_KEY, CLAIMED_KEY, OUTBOXES_KEY, MODEL_KEY, *self._queues],
                [outbox_key(""), RESULTS_KEPT, tuned_key("")],
            )
        )
        self._seen()
        if time.monotonic() >= self._judge_from:
            moved += self._end(self._expired(self._queues, [""]), expired=True, how="died or hung")
            if time.monotonic() > self._next:
                start = time.monotonic()
                moved += self.sweep()
                self._next = time.monotonic() + max(SWEEP, _SHARE * (time.monotonic() - start))
        return moved

    def _locked(self) -> bool:
        """Whether this janitor's turn begins, or goes on: to be asked again within two rounds."""
        held = int(self._interval * 2500)
        if self._client.set(LOCK, self._name, nx=True, px=held):
            return True
        if self._client.get(LOCK) != self._name.encode():
            return False
        self._client.pexpire(LOCK, held)
        return True

    def _seen(self) -> None:
        """Redis answered just now; a long silence before it means that leases are not to be trusted yet."""
        moment = time.monotonic()
        if moment - self._last > self._interval + self._grace:
            self._judge_from = moment + self._grace
        self._last = moment

    def bury(self, worker: str, how: str) -> int:
        """End the tries of all jobs of a worker that is known to be dead, without waiting for their leases."""
        count = self._end(self._expired(self._queues, [worker]), expired=False, how=how)
        self._client.hdel(WORKERS_KEY, worker)
        return count

    def _end(self, rows: Iterable[Sequence[bytes]], *, expired: bool, how: str) -> int:
        count = 0
        for row in rows:
            queue, entry, lasted, timeout, ttl, worker = (cell.decode() for cell in row)
            job, _, execution = entry.rpartition(":")
            late = 0 < float(timeout) <= float(lasted)
            why = f"it took longer than its {timeout} s" if late else "the photo may be what kills workers"
            reason = f"worker {worker} {how} while it ran this: {why}; look at its images"
            outcome = Outcome(
                job,
                Outcome.Type.FAILED,
                self._client,
                exc_string=reason,
                worker_name=worker,
                serializer=JSONSerializer,
            )
            fields = [part for pair in outcome.serialize().items() for part in pair]
            args: list[Any] = [
                queue,
                job,
                execution,
                1,
                0,
                int(expired),
                max(1, int(ttl)),
                utcformat(now()),
                reason,
                1,
            ]
            state = self._fail([STATS_KEY], [*args, *fields]).decode()
            count += state != "lost"
            log.warning("%s, now %s", reason, state, extra=job_labels(job) | {"event": "abandoned"})
        return count

    def sweep(self) -> int:
        """Requeue jobs that say they wait or run and are in no list: what a stock RQ worker loses when it dies
        between pop and start. Only what two sweeps in a row found missing, since jobs move all the time. Workers
        that have long been silent are forgotten besides. Returns how many jobs were put back."""
        self._forget()
        said: set[str] = set()
        prefix = f"{RQ}:job:"
        keys = self._client.scan_iter(match=f"{prefix}bl{SCHEMA}-*", count=1000)
        while chunk := [key.decode() for key in islice(keys, 1000)]:
            self._locked()
            pipe = self._client.pipeline(transaction=False)
            for key in chunk:
                pipe.hget(key, "status")
            statuses = pipe.execute()
            said |= {k[len(prefix) :] for k, s in zip(chunk, statuses, strict=True) if s in (b"queued", b"started")}
        missing = said - self._present() if said else set()
        again = sorted(missing & self._suspects)
        self._suspects = missing - set(again)
        found = self._stray(self._queues, again) if again else []
        for job in found:
            log.warning("was in no queue and is back", extra=job_labels(job.decode()) | {"event": "stray"})
        return len(found)

    def _forget(self) -> None:
        seconds, _ = self._client.time()
        silent = [
            name
            for name, said in self._client.hgetall(WORKERS_KEY).items()
            if seconds - float(json.loads(said).get("seen", 0)) > _SILENT
        ]
        if silent:
            self._client.hdel(WORKERS_KEY, *silent)
        started = self._client.hgetall(STARTING_KEY)
        gone = [name for name, said in started.items() if seconds - float(said.split()[0]) > _SILENT]
        if gone:
            self._client.hdel(STARTING_KEY, *gone)
        for queue in self._queues:  # RQ's own lists
            clean_worker_registry(Queue(queue, connection=self._client, serializer=JSONSerializer))

    def _present(self) -> set[str]:
        pipe = self._client.pipeline(transaction=True)
        for queue in self._queues:
            pipe.lrange(f"{RQ}:queue:{queue}", 0, -1)
            pipe.zrange(f"{RQ}:wip:{queue}", 0, -1)
        lists = pipe.execute()
        queued = {job.decode() for jobs in lists[::2] for job in jobs}
        running = {entry.decode().rpartition(":")[0] for entries in lists[1::2] for entry in entries}
        return queued | running
