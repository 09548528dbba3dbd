"""A worker's hold on jobs: take, keep, finish, fail, give back. What happens in Redis is in `worker.scripts`."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq.defaults import RQ_KEY_PREFIX as RQ
from rq.results import Result as Outcome
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from worker import scripts
from worker.contract import (
    CLAIMED_KEY,
    CLAIMS_KEY,
    FAILING_KEY,
    FAILURES_KEPT,
    FAILURES_KEY,
    LOCALIZE,
    MODEL_KEY,
    OUTBOXES_KEY,
    RESULTS_KEPT,
    STATS_KEY,
    Request,
    Result,
    outbox_key,
    tuned_key,
    waiting_key,
)
from worker.errors import ContractError


def connect(url: str, *, name: str = "") -> redis.Redis:
    """A client for a worker: short time-outs and a few quick retries. Outages are the caller's to wait out."""
    return redis.Redis.from_url(
        url,
        client_name=name or None,
        socket_timeout=10.0,
        socket_connect_timeout=5.0,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError],
    )


@dataclass(frozen=True, slots=True)
class Held:
    """A job that this worker has started and holds a lease on."""

    queue: str
    id: str
    execution: str
    tries: int
    """How often it was started, this time included."""
    retries_left: int
    timeout: float
    waited: float
    """Seconds from enqueueing to taking."""
    result_ttl: int
    failure_ttl: int
    suspect: bool
    """It may be what ended a worker or broke a batch before: it is to run alone."""
    data: bytes = field(repr=False)
    taken: float = field(default_factory=time.monotonic)

    @property
    def entry(self) -> str:
        """Member of RQ's set of running jobs."""
        return f"{self.id}:{self.execution}"

    def request(self) -> Request:
        """What the job asks for. Raises ContractError unless it names `LOCALIZE` with one request."""
        try:
            name, instance, args, kwargs = json.loads(zlib.decompress(self.data))
        except (ValueError, zlib.error):
            raise ContractError(f"job {self.id} does not hold JSON: only Boxlift may write to its queues") from None
        if name != LOCALIZE or instance is not None or kwargs or not isinstance(args, list) or len(args) != 1:
            raise ContractError(
                f"job {self.id} asks for {str(name)[:80]!r}: workers run {LOCALIZE} and nothing else"
            )
        return Request.from_dict(args[0])


class Ledger:
    """The jobs of one worker in Redis. Every method may raise redis.RedisError and may then be called again:
    a call that did its work unnoticed does no harm the second time."""

    def __init__(self, client: redis.Redis, worker: str, queues: Sequence[str], *, lease: float) -> None:
        self.client = client
        self.worker = worker
        self.queues = list(queues)
        self.lease = lease
        self._take = client.register_script(scripts.TAKE)
        self._finish = client.register_script(scripts.FINISH)
        self._fail = client.register_script(scripts.FAIL)
        self._give_back = client.register_script(scripts.GIVE_BACK)
        self._renew = client.register_script(scripts.RENEW)

    def take(self, limits: Mapping[str, int], *, holding: int) -> list[Held]:
        """Start up to `limits[queue]` jobs of each queue, most urgent queue first; see `scripts.TAKE`."""
        execution = uuid4().hex
        head: list[Any] = [self.worker, execution, self.lease, holding, utcformat(now())]
        rows = self._take(self.queues, head + [limits.get(queue, 0) for queue in self.queues])
        return [_held(row, execution) for row in rows]

    def wait(self, seconds: float) -> None:
        """Block until the most urgent queue has a job, or `seconds` are over. The job stays where it is: the
        list is rotated onto itself, which changes nothing and wakes everybody who waits."""
        key = f"{RQ}:queue:{self.queues[0]}"
        self.client.blmove(key, key, seconds, "LEFT", "LEFT")  # type: ignore[arg-type]

    def finish(self, held: Held, request: Request, result: Result, *, trouble: str = "") -> bool:
        """Store the result, also in the outbox; if somebody waits for it, as claimed by them for as long as they
        may.

        `trouble` is why images could not be used: it is put where people see it, in place of what was said of the
        task before. False if the lease was lost.
        """
        value = result.to_dict()
        fields = self._outcome(held, Outcome.Type.SUCCESSFUL, return_value=value)
        keys = [waiting_key(held.id), outbox_key(result.project), OUTBOXES_KEY, CLAIMS_KEY, CLAIMED_KEY]
        keys += [FAILURES_KEY, FAILING_KEY, tuned_key(result.project), MODEL_KEY, STATS_KEY]
        args: list[Any] = [held.queue, held.id, held.execution, max(1, held.result_ttl), utcformat(now())]
        args += [request.project, request.task, int(request.push), json.dumps(value, separators=(",", ":"))]
        entry = {"at": time.time(), "project": request.project, "task": request.task, "job": held.id}
        args += [RESULTS_KEPT, json.dumps(entry | {"reason": trouble}) if trouble else "", FAILURES_KEPT]
        return bool(self._finish(keys, [*args, *fields]))

    def fail(
        self, held: Held, reason: str, *, again: bool = True, delay: float = 0.0, suspect: bool = False
    ) -> str:
        """Record a failed try: 'queued' or 'scheduled' while tries are left and `again`, else 'failed'; 'lost'
        if the lease was lost. `reason` is kept, and shown to people. A `suspect` runs alone from then on."""
        fields = self._outcome(held, Outcome.Type.FAILED, exc_string=reason)
        args: list[Any] = [held.queue, held.id, held.execution, int(again), delay, 0, max(1, held.failure_ttl)]
        return str(_text(self._fail([STATS_KEY], [*args, utcformat(now()), reason, int(suspect), *fields])))

    def give_back(self, held: Held) -> bool:
        """Put a job that was not begun back to the front of its queue."""
        return bool(self._give_back([], [held.queue, held.id, held.execution]))

    def renew(self, held: Sequence[Held]) -> set[str]:
        """Prolong the leases. Returns the entries whose lease was lost."""
        if not held:
            return set()
        pairs = [text for job in held for text in (job.queue, job.entry)]
        return {_text(entry) for entry in self._renew([], [self.lease, *pairs])}

    def _outcome(self, held: Held, kind: Outcome.Type, **content: Any) -> list[Any]:
        outcome = Outcome(
            held.id,
            kind,
            self.client,
            worker_name=self.worker,
            serializer=JSONSerializer,
            execution_id=held.execution,
            **content,
        )
        return [part for pair in outcome.serialize().items() for part in pair]


def _held(row: Sequence[bytes], execution: str) -> Held:
    queue, id, tries, data, left, timeout, waited, result_ttl, failure_ttl, suspect = row
    return Held(
        queue=_text(queue),
        id=_text(id),
        execution=execution,
        tries=int(tries),
        retries_left=int(left),
        timeout=float(timeout),
        waited=max(0.0, float(waited)),
        result_ttl=int(result_ttl),
        failure_ttl=int(failure_ttl),
        suspect=_text(suspect) == "1",
        data=data,
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
