"""The worker process: jobs from Redis, images ahead, one batch after another through the network.

    take ──► load images in threads ──► batch ──► network ──► finish
     │  lease renewed by a thread            watchdog ends a process that hangs

Nothing is imported because a job says so: `worker.jobs.localize` is the only thing that is ever run.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from types import FrameType
from typing import Any, TypeVar
from uuid import uuid4

import redis

from worker import jobs
from worker.batching import BatchSize, Task, choose
from worker.contract import BULK, INTERACTIVE, ImageRef, Result, job_labels
from worker.errors import BoxliftError
from worker.images import FetchPolicy, ImageLimits, Photo
from worker.janitor import Janitor
from worker.lease import Keeper, Registration
from worker.ledger import Held, Ledger, connect
from worker.patience import away, patiently
from worker.plans import Plans
from worker.stats import Pace, Stats
from worker.watchdog import Watchdog

log = logging.getLogger("boxlift.worker")
T = TypeVar("T")

QUEUES = (INTERACTIVE, BULK)
IDLE = 0.25
"""Seconds between two looks at the bulk queue while there is nothing to do; urgent jobs wake the worker at once."""
PAUSES = (30.0, 5.0)
"""Seconds before an image that could not be fetched is tried again, by tries left after that (0, 1 and more)."""


class BatchWorker:
    """Runs jobs until told to stop. One for each process."""

    def __init__(
        self,
        client: redis.Redis,
        bench: jobs.Bench,
        *,
        name: str,
        batch: int = 8,
        batch_seconds: float = 1.0,
        loaders: int = 4,
        lease: float = 15.0,
        burst: bool = False,
        about: dict[str, Any] | None = None,
        ready: Callable[[str], None] | None = None,
    ) -> None:
        self._ready = ready
        self.name = name
        self._bench = bench
        self._burst = burst
        self._size = BatchSize(batch, batch_seconds)
        self._ledger = Ledger(client, name, QUEUES, lease=lease)
        self._plans = Plans(client, bench.localizer)
        self._stats = Stats(client)
        self._pace = Pace()
        self._watchdog = Watchdog()
        # Urgent images do not queue behind bulk ones that come slowly. Threads that nobody needs are not started.
        self._loaders = {
            INTERACTIVE: ThreadPoolExecutor(loaders, thread_name_prefix="load-urgent"),
            BULK: ThreadPoolExecutor(loaders, thread_name_prefix="load"),
        }
        self._stop = threading.Event()
        self._tasks: list[Task] = []
        self._done = 0
        self._started = time.monotonic()
        model = bench.localizer.model
        self._about = {"host": socket.gethostname(), "version": model.version, "network": model.network} | (
            about or {}
        )
        self._registration = Registration(client, name, QUEUES, model)
        self._keeper = Keeper(self._ledger, self._registration, self._holding, self._describe, self.stop)
        self._janitor = Janitor(client, name, QUEUES)

    def stop(self) -> None:
        """Finish the batch that runs, give the other jobs back, and return from `work`."""
        self._stop.set()

    def work(self) -> int:
        """Run jobs until `stop`, or with `burst` until both queues are empty. Returns how many were finished."""
        self._calmly(lambda: self._registration.enter(self._describe()))
        self._keeper.start()
        janitor = threading.Thread(target=self._janitor.run, args=(self._stop,), name="janitor", daemon=True)
        janitor.start()
        log.info("ready: %s", self._bench.localizer.model.version, extra={"event": "ready", "worker": self.name})
        if self._ready:
            self._ready(self.name)
        try:
            while not self._stop.is_set() and self._step():
                pass
            self._stop.set()
            self._leave()
        except redis.RedisError as error:
            if not away(error):
                raise
            # Only after a request to stop: until then every call waits for Redis.
            log.error("stopping without Redis (%s): %d jobs are found by their leases", error, len(self._tasks))
        finally:
            self._stop.set()
            self._watchdog.off()
            self._keeper.stop()
        return self._done

    def _step(self) -> bool:
        """Take, then run one batch. False if there is nothing left to do in a burst."""
        if overdue := self._overdue():
            # One that hangs ends this process in a moment: nothing is begun, and the others are not to blame.
            self._let_go(task for task in self._tasks if task not in overdue)
            self._guard()
            self._stop.wait(0.1)
            return True
        self._take()
        self._guard()
        if self._tasks:
            self._pace.busy()
        else:
            self._pace.idle()
            if self._burst:
                return False
            # Empty hands have no reason to outwait a Redis that is away when it is time to stop.
            self._calmly(lambda: self._ledger.wait(IDLE), last=0.0)
            return True
        batch = choose(self._tasks, self._size.size)
        if batch:
            self._run(batch)
        else:
            waiting = [future for task in self._tasks for future in task.loading if not future.done()]
            wait(waiting, timeout=0.01, return_when=FIRST_COMPLETED)
        return True

    def _take(self) -> None:
        ahead = sum(task.images for task in self._tasks)
        room = max(0, 2 * self._size.size - ahead)
        if any(task.alone for task in self._tasks):
            room = 0
        # Urgent jobs are always taken, so that they never wait for more than the batch that runs.
        limits = {INTERACTIVE: max(1, room), BULK: room}
        for held in self._calmly(lambda: self._ledger.take(limits, holding=len(self._tasks)), last=0.0):
            self._open(held)

    def _open(self, held: Held) -> None:
        # Before anything of it is touched: even a decoder that hangs at once is found.
        self._watchdog.by(time.monotonic() + held.timeout)
        try:
            request = held.request()
            plan, localizer = self._calmly(lambda: self._plans.open(request))
        except BoxliftError as error:
            self._fail(held, str(error), again=False)
            return
        except Exception as error:
            log.error("its plan could not be opened", exc_info=error, extra=self._labels(held))
            self._fail(held, _said(error), suspect=True)
            return
        task = Task(held, request, plan, localizer, [])
        for number, ref in enumerate(request.images):
            task.loading.append(self._loaders[held.queue].submit(self._load, task, number, ref))
        self._tasks.append(task)

    def _load(self, task: Task, number: int, ref: ImageRef) -> jobs.Loaded:
        """In a loader's thread."""
        task.begun[number] = time.monotonic()
        return self._bench.load(ref)

    def _overdue(self) -> list[Task]:
        now = time.monotonic()
        return [task for task in self._tasks if (late := task.late) is not None and late <= now]

    def _guard(self) -> None:
        """An image that never comes, say because a decoder hangs, must not stop everything for ever."""
        now = time.monotonic()
        late = [task.late or now + task.held.timeout for task in self._tasks if not task.ready]
        if late:
            self._watchdog.by(min(late))
        else:
            self._watchdog.off()

    def _run(self, batch: list[Task]) -> None:
        if batch[0].alone:
            self._let_go(task for task in self._tasks if task not in batch)
        self._watch(batch)
        for task in batch:
            trouble = task.trouble()
            if trouble and task.held.retries_left > 0:
                self._fail(task.held, trouble, delay=PAUSES[min(task.held.retries_left - 1, 1)], task=task)
        batch = [task for task in batch if task in self._tasks]
        if batch:
            self._localize(batch)
        self._guard()
        self._calmly(self._stats.flush)

    def _localize(self, batch: list[Task]) -> None:
        loaded = [task.loaded() for task in batch]
        photos = sum(isinstance(image, Photo) for images in loaded for image in images)
        start = time.monotonic()
        try:
            results = self._bench.localize(
                [task.request for task in batch],
                [task.plan for task in batch],
                loaded,
                at_once=self._size.size,
                localizer=batch[0].localizer,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns one job of the batch and no other
            self._rescue(batch, error, photos)
            return
        self._watchdog.off()
        seconds = time.monotonic() - start
        self._size.took(photos, seconds)
        self._stats.add("images", sum(len(task.loading) for task in batch))
        self._stats.total("busy", seconds)
        for task, result in zip(batch, results, strict=True):
            self._finish(task, result)

    def _rescue(self, batch: list[Task], error: Exception, images: int) -> None:
        """A batch raised. Alone, each task succeeds or fails for itself."""
        before = self._size.size
        if _out_of_memory(error):
            self._size.too_large(min(images, before))
        if len(batch) > 1 or self._size.size < before:
            log.warning(
                "a batch of %d raised %s: its jobs run one by one, %d images at once",
                len(batch),
                type(error).__name__,
                self._size.size,
                extra={"event": "batch-failed", "worker": self.name},
            )
            for task in batch:
                self._watch([task])
                self._localize([task])
            return
        task = batch[0]
        log.error("%s raised", task.held.id, exc_info=error, extra=self._labels(task.held))
        # To people and to Label Studio goes what happened; the traceback stays in this worker's log.
        self._fail(task.held, _said(error), task=task, suspect=True)

    def _finish(self, task: Task, result: Result) -> None:
        errors = list(dict.fromkeys(image.error for image in result.images if image.error is not None))
        trouble = "; ".join(errors)[:1000]
        stored = self._calmly(lambda: self._ledger.finish(task.held, task.request, result, trouble=trouble))
        self._tasks.remove(task)
        queue = task.held.queue
        if not stored:
            self._stats.add(f"jobs:{queue}:lost")
            return
        self._done += 1
        self._pace.ended()
        if errors:
            self._stats.add("images:failed", sum(image.error is not None for image in result.images))
            log.warning("not usable: %s", trouble, extra=self._labels(task.held) | {"event": "image-failed"})
        seconds = task.held.waited + time.monotonic() - task.held.taken
        self._stats.latency(queue, seconds)
        log.info("finished in %.2f s", seconds, extra=self._labels(task.held) | {"event": "finished"})

    def _fail(
        self,
        held: Held,
        reason: str,
        *,
        again: bool = True,
        delay: float = 0.0,
        suspect: bool = False,
        task: Task | None = None,
    ) -> None:
        state = self._calmly(lambda: self._ledger.fail(held, reason, again=again, delay=delay, suspect=suspect))
        if task is not None:
            self._tasks.remove(task)
        if state == "failed":
            self._pace.ended()
        outcome = {"failed": "failed", "lost": "lost"}.get(state, "retried")
        if outcome == "lost":
            self._stats.add(f"jobs:{held.queue}:lost")
        log.warning("%s: %s", state, reason, extra=self._labels(held) | {"event": outcome})

    def _let_go(self, tasks: Iterable[Task], *, last: float = 15.0) -> None:
        """Give back what was not begun. Each goes to the front of its queue, so the first one last."""
        for task in list(tasks)[::-1]:
            for loading in task.loading:
                loading.cancel()
            self._calmly(lambda held=task.held: self._ledger.give_back(held), last=last)  # type: ignore[misc]
            self._tasks.remove(task)

    def _leave(self) -> None:
        self._watchdog.off()
        for loaders in self._loaders.values():
            loaders.shutdown(wait=False, cancel_futures=True)
        self._let_go(self._tasks, last=2.0)
        self._keeper.stop()
        self._calmly(self._stats.flush, last=2.0)
        self._calmly(self._registration.leave, last=2.0)
        log.info("stopped after %d jobs", self._done, extra={"event": "stopped", "worker": self.name})

    def _watch(self, batch: Sequence[Task]) -> None:
        self._watchdog.by(time.monotonic() + max(task.held.timeout for task in batch))

    def _holding(self) -> list[Held]:
        return [task.held for task in list(self._tasks)]

    def _describe(self) -> dict[str, Any]:
        rate = 1 / self._size.per_image if self._size.per_image else 0.0
        return self._about | {
            "rate": round(rate, 3),
            "pace": round(self._pace.rate(), 3),
            "batch": self._size.size,
            "held": len(self._tasks),
            "done": self._done,
            "up": round(time.monotonic() - self._started, 1),
        }

    def _labels(self, held: Held) -> dict[str, Any]:
        return job_labels(held.id) | {"queue": held.queue, "tries": held.tries}

    def _calmly(self, call: Callable[[], T], *, last: float = 15.0) -> T:
        # Waiting for Redis is no fault of the jobs at hand: the watchdog does not count it.
        return patiently(call, stop=self._stop, last=last, begin=self._watchdog.off)


def _said(error: Exception) -> str:
    """What people and Label Studio are told of it: no traceback."""
    return f"{type(error).__name__}: {str(error)[:500]}"


def _out_of_memory(error: Exception) -> bool:
    # torch's own class would have to be imported for this; its message is part of its interface.
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def run_worker(
    url: str,
    localizer: jobs.Localizer,
    *,
    policy: FetchPolicy | None = None,
    limits: ImageLimits | None = None,
    name: str | None = None,
    batch: int = 8,
    batch_seconds: float = 1.0,
    loaders: int = 4,
    lease: float = 15.0,
    burst: bool = False,
    about: dict[str, Any] | None = None,
    ready: Callable[[str], None] | None = None,
) -> int:
    """Run a worker in this process, its main thread, until SIGTERM or SIGINT. Returns how many jobs it finished.

    `url` is Redis's address. `batch` is the most images that go through the network at once, and `batch_seconds`
    how long a batch may take at most, once speeds are known. `loaders` threads fetch and decode ahead. `lease`
    is how many seconds after its last sign of life a worker's jobs go to another. With `burst` it ends when both
    queues are empty. `ready` is called with the worker's name once it takes jobs.
    """
    name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    client = connect(url, name=name)
    bench = jobs.Bench(localizer, policy or FetchPolicy(), limits or ImageLimits())
    worker = BatchWorker(
        client,
        bench,
        name=name,
        batch=batch,
        batch_seconds=batch_seconds,
        loaders=loaders,
        lease=lease,
        burst=burst,
        about=about,
        ready=ready,
    )

    def stop(signum: int, frame: FrameType | None) -> None:
        log.info("%s: stopping after this batch", signal.Signals(signum).name, extra={"event": "stopping"})
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        return worker.work()
    finally:
        client.close()
