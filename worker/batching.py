"""Which of the jobs at hand run next, together, and how many: images are loaded ahead while others are computed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.contract import INTERACTIVE, Plan, Request
from worker.errors import ImageError
from worker.jobs import Loaded
from worker.ledger import Held

if TYPE_CHECKING:
    from worker.jobs import Localizer


@dataclass(eq=False, slots=True)
class Task:
    """A job at hand whose images are being loaded."""

    held: Held
    request: Request
    plan: Plan
    localizer: Localizer
    """Who looks at them: the worker's own, or that of the project's tuning."""
    loading: list[Future[Loaded]]
    since: float = field(default_factory=time.monotonic)
    begun: dict[int, float] = field(default_factory=dict)
    """Number of an image → when a loader began with it; not yet those that wait for a loader."""

    @property
    def ready(self) -> bool:
        """All images are there, or known to be missing."""
        return all(future.done() for future in self.loading)

    @property
    def images(self) -> int:
        """Number of images, at least 1 so that a task without any counts too."""
        return max(1, len(self.loading))

    @property
    def alone(self) -> bool:
        """A job that may be what ended a worker, or broke a batch, risks nobody else."""
        return self.held.suspect

    @property
    def late(self) -> float | None:
        """When an image that is being loaded has taken as long as the job may; None while none is. Waiting for a
        loader does not count: others that take long are no fault of this one."""
        begun = [at for number, at in list(self.begun.items()) if not self.loading[number].done()]
        return min(begun) + self.held.timeout if begun else None

    @property
    def kind(self) -> tuple[object, ...]:
        """Tasks of one kind can go through the network in one call."""
        return self.held.queue, self.plan.max_boxes, self.plan.min_score, id(self.localizer)

    def loaded(self) -> list[Loaded]:
        """The images; waits for those that are still being loaded."""
        return [future.result() for future in self.loading]

    def trouble(self) -> str | None:
        """Why it may help to try later: the message of an image that could not be fetched just now."""
        return next((str(i) for i in self.loaded() if isinstance(i, ImageError) and i.retryable), None)


class BatchSize:
    """How many images go through the network at once: as many as are waiting, at most `largest`, and never so
    many that a batch takes longer than `seconds`, which somebody with an urgent task would have to wait.

    It begins with one and doubles, since nothing is known of the speed at first. What memory did not hold is tried
    again after `GOOD` full batches, and each time in vain only after twice as many.
    """

    def __init__(self, largest: int, seconds: float) -> None:
        self._most = max(1, largest)
        self._largest = self._most
        self._grown = 1
        self._good = 0
        self._wanted = GOOD
        self._batches = 0
        self._seconds = seconds
        self._per_image = 0.0

    @property
    def size(self) -> int:
        """Images of the next batch."""
        most = min(self._largest, self._grown)
        return max(1, min(most, int(self._seconds / self._per_image))) if self._per_image else most

    @property
    def per_image(self) -> float:
        """Seconds an image took lately; 0 before the first batch."""
        return self._per_image

    def took(self, images: int, seconds: float) -> None:
        """Learn from a batch of so many images that ran."""
        if images < 1:
            return
        full, rate = images >= self.size, seconds / images
        # The first one also compiled and allocated: it says nothing about those that follow.
        self._per_image = rate if self._batches < 2 else 0.7 * self._per_image + 0.3 * rate
        self._batches += 1
        if not full:
            return
        self._grown = min(2 * self._grown, self._most)
        self._good += 1
        if self._largest < self._most and self._good >= self._wanted:
            self._largest, self._good = min(2 * self._largest, self._most), 0

    def too_large(self, images: int) -> None:
        """Learn from a batch that memory did not hold: half of it is the most for a while."""
        self._largest = max(1, min(self._largest, images // 2))
        self._good, self._wanted = 0, min(2 * self._wanted, MOST_GOOD)


GOOD = 32
"""Full batches after which a size that memory did not hold is tried again, doubled each time."""
MOST_GOOD = 4096
PATIENCE = 0.2
"""Seconds that a batch of others is put off for an urgent task whose image is just being fetched."""
FILL = 0.05
"""Seconds that a batch is put off for more of its images to arrive."""


def choose(tasks: Sequence[Task], size: int, *, at: float | None = None) -> list[Task]:
    """The tasks to run now, all of one kind and at most `size` images unless one task alone has more.

    Urgent ones first. Empty where it is better to wait a moment for images.
    """
    moment = time.monotonic() if at is None else at
    urgent = [task for task in tasks if task.held.queue == INTERACTIVE]
    ready = [task for task in urgent if task.ready]
    if ready:
        return _fill(ready, size)
    if any(moment - task.since < PATIENCE for task in urgent):
        return []
    ready = [task for task in tasks if task.ready]
    if not ready:
        return []
    batch = _fill(ready, size)
    more = any(not task.ready and task.kind == batch[0].kind for task in tasks)
    short = sum(task.images for task in batch) < size
    if short and more and moment - min(task.since for task in batch) < FILL:
        return []
    return batch


def _fill(ready: Sequence[Task], size: int) -> list[Task]:
    first = ready[0]
    if first.alone:
        return [first]
    batch, images = [first], first.images
    for task in ready[1:]:
        if task.alone or task.kind != first.kind or images + task.images > size:
            continue
        batch.append(task)
        images += task.images
    return batch
