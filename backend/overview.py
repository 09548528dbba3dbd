"""What goes on in the queue, read from Redis in one go; and the few things a person can do about it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import redis
from rq.defaults import RQ_KEY_PREFIX as RQ

from backend import queue_scripts as scripts
from backend.queueing import live_workers, talking
from backend.tunings import State, Tunings
from worker.contract import (
    BULK,
    CLAIMED_KEY,
    CLAIMS_KEY,
    FAILURES_KEY,
    INTERACTIVE,
    OUTBOXES_KEY,
    SCHEMA,
    STATS_KEY,
    job_labels,
    outbox_key,
    sending_key,
    waiting_key,
)

QUEUES = (INTERACTIVE, BULK)
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue."""

    name: str
    waiting: int
    running: int
    paused: int
    """Jobs whose image could not be fetched, until they are tried again."""
    failed: int
    oldest: float
    """Seconds that the job at the front has waited."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment."""

    queues: tuple[QueueState, ...]
    workers: dict[str, dict[str, Any]]
    """What each live worker says about itself."""
    rate: float
    """Images a second of all workers together, while they compute."""
    pace: float
    """Tasks a second that they really did, over the last minute or since they had something to do."""
    eta: float | None
    """Seconds until all that waits is done, at this pace; None while it is not known."""
    tunings: dict[int, State]
    """Project → what became of the last wish to tune it."""
    undelivered: dict[int, int]
    """Project → results that are not in Label Studio yet."""
    stats: dict[str, float]
    """The workers' counters, see worker.stats."""
    memory: int
    """Bytes that Redis uses."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def overview(client: redis.Redis) -> Overview:
    """The state of queues, workers and outboxes. Raises QueueError where Redis cannot be reached."""
    with talking():
        workers = live_workers(client)
        pipe = client.pipeline(transaction=False)
        for queue in QUEUES:
            pipe.llen(f"{RQ}:queue:{queue}")
            pipe.zcard(f"{RQ}:wip:{queue}")
            pipe.zcard(f"{RQ}:scheduled:{queue}")
            pipe.zcount(f"{RQ}:failed:{queue}", "-inf", "+inf")
            pipe.lindex(f"{RQ}:queue:{queue}", 0)
        pipe.smembers(OUTBOXES_KEY)
        pipe.hgetall(STATS_KEY)
        pipe.info("memory")
        pipe.time()
        *counts, projects, stats, memory, (seconds, _) = pipe.execute()
        queues = []
        for number, name in enumerate(QUEUES):
            waiting, running, paused, failed, first = counts[5 * number : 5 * number + 5]
            since = client.hget(f"{RQ}:job:{first.decode()}", "queued") if first else None
            oldest = max(0.0, seconds - float(since)) if since else 0.0
            queues.append(QueueState(name, waiting, running, paused, failed, oldest))
        undelivered = _undelivered(client, sorted(int(project) for project in projects))
    ahead = sum(queue.waiting + queue.running + queue.paused for queue in queues)
    return Overview(
        queues=tuple(queues),
        workers=workers.about,
        rate=workers.rate,
        pace=workers.pace,
        eta=ahead / workers.pace if workers.pace else (0.0 if not ahead else None),
        tunings=Tunings(client).states(),
        undelivered=undelivered,
        stats={name.decode(): float(value) for name, value in stats.items()},
        memory=int(memory["used_memory"]),
    )


def _undelivered(client: redis.Redis, projects: list[int]) -> dict[int, int]:
    pipe = client.pipeline(transaction=True)  # results move between the two
    for project in projects:
        pipe.hlen(outbox_key(project))
        pipe.hlen(sending_key(project))
    counts = pipe.execute() if projects else []
    return {p: a + b for p, a, b in zip(projects, counts[::2], counts[1::2], strict=True) if a + b}


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that went wrong for good, and why."""

    at: float
    project: int
    task: int
    job: str
    reason: str


def failures(client: redis.Redis, most: int = 1000) -> list[Failure]:
    """Failed jobs, images that could not be used, results that Label Studio refused; newest first."""
    with talking():
        found = [Failure(**json.loads(entry)) for entry in client.lrange(FAILURES_KEY, 0, most - 1)]
        for jobs in _chunks(failed_jobs(client)):
            pipe = client.pipeline(transaction=False)
            for job in jobs:
                pipe.hmget(f"{RQ}:job:{job}", "ended", "reason", "data")
            for job, (ended, reason, data) in zip(jobs, pipe.execute(), strict=True):
                if ended:
                    project, task = _whose(job, data)
                    text = (reason or b"").decode(errors="replace")
                    found.append(Failure(float(ended), project, task, job, text))
    return sorted(found, key=lambda failure: -failure.at)[:most]


def failed_jobs(client: redis.Redis, project: int | None = None) -> Iterator[str]:
    """Ids of failed jobs, of one project or of all."""
    prefix = _prefix(project)
    for queue in QUEUES:
        jobs: list[bytes] = client.zrange(f"{RQ}:failed:{queue}", 0, -1)  # type: ignore[assignment]
        for job in jobs:
            if job.decode().startswith(prefix):
                yield job.decode()


def troubled_jobs(client: redis.Redis, project: int | None = None) -> Iterator[str]:
    """Ids of jobs that were done although images could not be used, of one project or of all; as far as the list of
    failures goes back."""
    for text in client.lrange(FAILURES_KEY, 0, -1):
        entry = json.loads(text)
        if entry["job"] and project in (None, entry["project"]):
            yield str(entry["job"])


def retry(client: redis.Redis, jobs: Iterable[str], tries: int) -> int:
    """Put failed jobs, and those whose images could not be used, back into their queues, with `tries` further
    tries. Returns how many; what is neither, or no longer known, stays as it is."""
    script = client.register_script(scripts.RETRY)
    with talking():
        count = 0
        for chunk in _chunks(jobs):
            pipe = client.pipeline(transaction=False)
            for job in chunk:
                script([], [job, tries], client=pipe)
            count += sum(pipe.execute())
        return count


def cancel(client: redis.Redis, project: int, tasks: Iterable[int] | None = None) -> int:
    """Take a project's jobs, or those of some tasks, out of the queues, with their results that are not delivered.

    What a worker is just computing is thrown away when it is done. Returns how many jobs were taken out.
    """
    script = client.register_script(scripts.CANCEL)
    wanted = [] if tasks is None else [int(task) for task in tasks]
    keys = [outbox_key(project), sending_key(project), CLAIMS_KEY, CLAIMED_KEY, *QUEUES]
    with talking():
        head: list[Any] = [_prefix(project), f"{project}:", waiting_key(""), int(tasks is None)]
        return int(script(keys, head + wanted))


def _prefix(project: int | None) -> str:
    return f"bl{SCHEMA}-" + ("" if project is None else f"{project}-")


def _whose(job: str, data: bytes | None) -> tuple[int, int]:
    """Project and task of a job: from its request, or from its id where that cannot be read."""
    try:
        request = json.loads(zlib.decompress(data or b""))[2][0]
        return int(request["project"]), int(request["task"])
    except (ValueError, LookupError, TypeError, zlib.error):
        said = job_labels(job)
        return said["project"], said["task"]


def _chunks(items: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
