"""Tasks to jobs and results back: enqueue what is not under way yet, wait a bounded time, answer what is ready."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry as ClientRetry
from rq import Queue, Retry
from rq.defaults import RQ_KEY_PREFIX as RQ
from rq.job import JobStatus
from rq.results import Result as Outcome
from rq.serializers import JSONSerializer
from rq.utils import now

from backend import queue_scripts as scripts
from worker.contract import (
    BULK,
    CLAIMED_KEY,
    CLAIMS_KEY,
    INTERACTIVE,
    LOCALIZE,
    MODEL_KEY,
    OUTBOXES_KEY,
    RESULTS_KEPT,
    WORKERS_KEY,
    Model,
    Plan,
    Request,
    Result,
    Tuning,
    outbox_key,
    plan_key,
    sending_key,
    waiting_key,
)
from worker.errors import QueueError, QueueFullError

if TYPE_CHECKING:
    from backend.settings import Settings

_CHUNK = 250
"""Jobs enqueued in one round trip."""
_MARGIN = 5.0
"""Seconds that the sign of somebody waiting outlives the wait, for the time between deadline and clean-up."""
_BLOCK = 2.0
"""Longest single blocking read; under the client's socket time-out."""
_LIVE = 30.0
"""Seconds after its last sign of life that a worker counts as gone."""
_IMAGES_A_TIMEOUT = 16
"""Tasks with more images (pages) than this get a multiple of the timeout."""


def connect(url: str) -> redis.Redis:
    """A client for the backend: a request waits seconds for a lost Redis, not minutes."""
    return redis.Redis.from_url(
        url,
        socket_timeout=_BLOCK + 3.0,
        socket_connect_timeout=2.0,
        health_check_interval=30,
        retry=ClientRetry(ExponentialBackoff(cap=0.5, base=0.05), 4),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError],
    )


@contextmanager
def talking() -> Iterator[None]:
    """Turns redis-py's errors into QueueError with advice and without the address, which holds a password."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise QueueError(
            f"Redis cannot be reached ({type(error).__name__}): check REDIS_URL and the server"
        ) from None
    except redis.ResponseError as error:
        raise QueueError(f"Redis refused a command: {error}") from None


class Jobs:
    """The queue as the backend sees it. Safe to use from many threads. Every method raises QueueError where Redis
    cannot be reached.

    `timeout` is seconds a task of up to 16 images may take, `retries` further tries of a failed job, `result_ttl`
    and `failure_ttl` seconds that outcomes are kept, `limit` the most jobs that may wait, `pause` seconds before a
    failed job (or a result whose images could not be used) is tried anew when it is asked for again.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        timeout: int = 120,
        retries: int = 2,
        result_ttl: int = 86400,
        failure_ttl: int = 7 * 86400,
        limit: int = 100_000,
        pause: float = 60.0,
    ) -> None:
        self.client = client
        self._timeout = timeout
        self._retries = retries
        self._result_ttl = max(1, result_ttl)
        self._failure_ttl = max(1, failure_ttl)
        self._limit = limit
        self._pause = pause
        self._queues: dict[str, Queue] = {}
        self._enqueue = client.register_script(scripts.ENQUEUE)
        self._answer = client.register_script(scripts.ANSWER)
        self._leave = client.register_script(scripts.LEAVE)

    @classmethod
    def of(cls, client: redis.Redis, settings: Settings) -> Jobs:
        """Jobs with the limits of these settings."""
        return cls(
            client,
            timeout=settings.job_timeout,
            retries=settings.job_retries,
            result_ttl=settings.result_ttl,
            limit=settings.queue_limit,
        )

    def model(self) -> Model | None:
        """What the workers announced last; None before the first one was ready."""
        with talking():
            text = self.client.get(MODEL_KEY)
        return Model.from_dict(json.loads(text)) if text else None

    def tuning(self, project: int) -> Tuning | None:
        """The project's own tuning; None where it has none."""
        from backend.tunings import Tunings

        return Tunings(self.client).of(project)

    def wish_tuning(self, project: int, *, repredict: bool) -> bool:
        """Ask for a tuning in the background. False where one is waited for already."""
        from backend.tunings import Tunings

        return Tunings(self.client).wish(project, repredict=repredict)

    def corrected(self, project: int, some: int, every: int) -> bool:
        """Count corrections; True where there are `every` since the last time."""
        from backend.tunings import Tunings

        return Tunings(self.client).corrected(project, every, some)

    def put_plan(self, plan: Plan) -> str:
        """Store a plan, or keep it longer, and return its digest."""
        with talking():
            self.client.set(plan_key(plan.digest), json.dumps(plan.to_dict()), ex=RESULTS_KEPT)
        return plan.digest

    def plan(self, digest: str) -> Plan | None:
        """A stored plan; None where it is gone."""
        with talking():
            text = self.client.get(plan_key(digest))
        return Plan.from_dict(json.loads(text)) if text else None

    def submit(self, requests: Sequence[Request], *, interactive: bool, wait: float = 0.0) -> dict[int, Result]:
        """Results, by task id, that are there within `wait` seconds; the others will go to the outbox.

        What is under way is not enqueued again, and a finished job is answered from its result. With
        `interactive` the jobs go before all bulk ones, even if they are among those already. There is no
        wait where it would be in vain: no worker lives, or too many urgent tasks are ahead.
        Raises QueueFullError above the limit of waiting jobs.
        """
        with talking():
            return self._submit({r.job_id: r for r in requests}, interactive=interactive, wait=wait)

    def cancel(self, project: int, tasks: Iterable[int] | None = None) -> int:
        """Take a project's jobs, or those of some tasks, out of the queues. Returns how many there were."""
        from backend.overview import cancel

        return cancel(self.client, project, tasks)

    def hand_over(self, results: Iterable[Result]) -> None:
        """Have results delivered that `submit` answered with and that nobody else will take to Label Studio."""
        with talking():
            pipe = self.client.pipeline(transaction=True)
            for result in results:
                text = json.dumps(result.to_dict(), separators=(",", ":"))
                pipe.hset(outbox_key(result.project), str(result.task), text)
                pipe.expire(outbox_key(result.project), RESULTS_KEPT)
                pipe.sadd(OUTBOXES_KEY, result.project)
            pipe.execute()

    def lengths(self) -> dict[str, int]:
        """Jobs that wait, by queue."""
        with talking():
            pipe = self.client.pipeline(transaction=False)
            for name in (INTERACTIVE, BULK):
                pipe.llen(f"{RQ}:queue:{name}")
            return dict(zip((INTERACTIVE, BULK), pipe.execute(), strict=True))

    def _submit(self, wanted: Mapping[str, Request], *, interactive: bool, wait: float) -> dict[int, Result]:
        if not wanted:
            return {}
        deadline = time.monotonic() + wait
        self._admit(wanted, interactive)
        waiter = uuid4().hex if interactive and wait > 0 and self._in_time(len(wanted), wait) else ""
        queue = INTERACTIVE if interactive else BULK
        states = self._put(wanted, queue, waiter, wait)
        done = {job: wanted[job] for job, state in states.items() if state == "finished"}
        found = self._finished(done, wait)
        stale = {
            job: wanted[job] for job, (result, age) in found.items() if age > self._pause and _troubled(result)
        }
        if stale:
            self._answered(stale.values())  # not with these: they are done anew
            states |= self._put(stale, queue, waiter, wait, anew=True)
        results = {job: result for job, (result, _) in found.items() if job not in stale}
        if waiter:
            pending = {job for job, state in states.items() if state not in ("finished", "failed")}
            results |= self._await(pending, waiter, deadline)
        self._answered(wanted[job] for job in results)
        return {wanted[job].task: result for job, result in results.items()}

    def _answered(self, requests: Iterable[Request]) -> None:
        """Their results are with us: nobody else is to deliver them. Until here they would be, should we die."""
        names = [f"{request.project}:{request.task}:{request.job_id}" for request in requests]
        if names:
            pipe = self.client.pipeline(transaction=True)
            pipe.zrem(CLAIMS_KEY, *names)
            pipe.hdel(CLAIMED_KEY, *names)
            pipe.execute()

    def _admit(self, wanted: Mapping[str, Request], interactive: bool) -> None:
        waiting, more = self._load(interactive), len(wanted)
        if waiting + more > self._limit:  # only now: what is known already takes no place
            pipe = self.client.pipeline(transaction=False)
            for job in wanted:
                pipe.hget(f"{RQ}:job:{job}", "status")
            more = sum(status in (None, b"failed") for status in pipe.execute())
        if more and waiting + more > self._limit:
            error = QueueFullError(
                f"{waiting:,} tasks wait already, for a worker or for Label Studio, and {more:,} more are "
                f"over the limit of {self._limit:,} (BOXLIFT_QUEUE_LIMIT): ask again later, or add workers"
            )
            rate = live_workers(self.client).rate
            error.retry_after = max(5, min(3600, math.ceil(more / rate))) if rate else 60
            raise error

    def _load(self, interactive: bool) -> int:
        """Tasks that wait: for a worker, for their next try and, where nobody waits for an answer, for Label
        Studio to take their results, which would pile up without end where it takes none."""
        pipe = self.client.pipeline(transaction=False)
        for name in (INTERACTIVE, BULK):
            pipe.llen(f"{RQ}:queue:{name}")
            pipe.zcard(f"{RQ}:scheduled:{name}")
        if not interactive:
            pipe.smembers(OUTBOXES_KEY)
        counts = pipe.execute()
        if not interactive:
            for project in counts.pop():
                pipe.hlen(outbox_key(project.decode()))
            counts += pipe.execute()
        return sum(counts)

    def _in_time(self, more: int, wait: float) -> bool:
        """Whether urgent tasks that are put now can be ready within `wait` seconds."""
        workers = live_workers(self.client)
        if not workers.count:
            return False
        ahead = self.client.llen(f"{RQ}:queue:{INTERACTIVE}") + more
        return not workers.rate or ahead / workers.rate <= wait

    def _put(
        self, wanted: Mapping[str, Request], queue: str, waiter: str, wait: float, *, anew: bool = False
    ) -> dict[str, str]:
        """Enqueue. Returns for each job 'new', or the status that it has already."""
        states: dict[str, str] = {}
        todo = iter(wanted.items())
        milliseconds = int((wait + _MARGIN) * 1000)
        while chunk := list(islice(todo, _CHUNK)):
            pipe = self.client.pipeline(transaction=False)
            pipe.sadd(Queue.redis_queues_keys, f"{RQ}:queue:{queue}")
            for job, request in chunk:
                args: list[Any] = [job, queue, INTERACTIVE, waiter, milliseconds, self._pause, int(anew)]
                self._enqueue([waiting_key(job)], args + self._fields(job, request, queue), client=pipe)
            answers = pipe.execute()[1:]
            states |= {job: answer.decode() for (job, _), answer in zip(chunk, answers, strict=True)}
        return states

    def _fields(self, job_id: str, request: Request, queue: str) -> list[Any]:
        """RQ's hash of a new job, as names and values in turn. Addresses only: no image bytes, no secrets."""
        if queue not in self._queues:
            self._queues[queue] = Queue(queue, connection=self.client, serializer=JSONSerializer)
        job = self._queues[queue].create_job(
            LOCALIZE,
            args=(request.to_dict(),),
            job_id=job_id,
            description=f"task {request.task} of project {request.project}",
            timeout=self._timeout * max(1, math.ceil(len(request.images) / _IMAGES_A_TIMEOUT)),
            result_ttl=self._result_ttl,
            failure_ttl=self._failure_ttl,
            retry=Retry(max=self._retries) if self._retries else None,
            status=JobStatus.QUEUED,
        )
        job.origin = queue
        job.enqueued_at = now()
        return [part for pair in job.to_dict().items() if pair[1] != "" for part in pair]

    def _finished(self, jobs: Mapping[str, Request], wait: float) -> dict[str, tuple[Result, float]]:
        """The results of finished jobs, with their age in seconds, except those being sent to Label Studio now.
        They are answered with in `wait` seconds at the latest."""
        if not jobs:
            return {}
        pipe = self.client.pipeline(transaction=False)
        for job, request in jobs.items():
            keys = [outbox_key(request.project), sending_key(request.project), CLAIMS_KEY, CLAIMED_KEY]
            task = request.task if request.push else ""
            self._answer(keys, [job, request.project, task, wait + _MARGIN, RESULTS_KEPT], client=pipe)
        pipe.time()
        *answers, (seconds, micros) = pipe.execute()
        found = {}
        for job, rows in zip(jobs, answers, strict=True):
            if (result := read_outcome(job, rows, self.client)) is not None:
                found[job] = (result, seconds + micros / 1e6 - int(rows[0][0].split(b"-")[0]) / 1000)
        return found

    def _await(self, pending: set[str], waiter: str, deadline: float) -> dict[str, Result]:
        """The results that come before `deadline`, and a last look at the others: a worker may have left its
        result to us in the very last moment."""
        results: dict[str, Result] = {}
        streams = {f"{RQ}:results:{job}": job for job in pending}
        try:
            while streams and (left := deadline - time.monotonic()) > 0:
                block = max(1, int(min(left, _BLOCK) * 1000))
                news: Any = self.client.xread(dict.fromkeys(streams, "0-0"), block=block)
                for key, rows in news or []:
                    job = streams.pop(key.decode())
                    if (result := read_outcome(job, rows[-1:], self.client)) is not None:
                        results[job] = result
        finally:
            pipe = self.client.pipeline(transaction=False)
            for job in streams.values():
                self._leave([waiting_key(job)], [job, waiter], client=pipe)
            for job, rows in zip(list(streams.values()), pipe.execute() if streams else [], strict=True):
                if (result := read_outcome(job, rows, self.client)) is not None:
                    results[job] = result
        return results


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers that gave a sign of life lately."""

    count: int
    rate: float
    """Images a second of all of them together while they compute; 0 while unknown."""
    pace: float
    """Tasks a second that all of them together really did lately; 0 while there is nothing to do."""
    about: dict[str, dict[str, Any]]
    """What each says about itself, by name; `age` is seconds since then."""


def live_workers(client: redis.Redis) -> Workers:
    """The workers that gave a sign of life in the last 30 seconds."""
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(WORKERS_KEY)
    pipe.time()
    said, (seconds, _) = pipe.execute()
    about = {name.decode(): json.loads(text) for name, text in said.items()}
    for entry in about.values():
        entry["age"] = seconds - float(entry.pop("seen", 0))
    about = {name: entry for name, entry in sorted(about.items()) if entry["age"] < _LIVE}
    rate, pace = (sum(float(entry.get(name, 0)) for entry in about.values()) for name in ("rate", "pace"))
    return Workers(len(about), rate, pace, about)


def read_outcome(job: str, rows: Any, client: redis.Redis) -> Result | None:
    """The result in the last entry of a job's stream; None if there is none, or the job failed."""
    if not rows:
        return None
    entry, fields = rows[-1]
    if isinstance(fields, list):  # scripts answer with a flat list, redis-py's own commands with a dict
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    outcome = Outcome.restore(job, entry.decode(), fields, connection=client, serializer=JSONSerializer)
    return Result.from_dict(outcome.return_value) if outcome.return_value is not None else None


def _troubled(result: Result) -> bool:
    return any(image.error is not None for image in result.images)
