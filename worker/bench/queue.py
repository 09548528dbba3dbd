"""Processes for measuring the queue: a worker whose network takes a fixed time, and an engine without any queue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from worker.contract import Detection, Model, Tuning
from worker.images import ImageLimits, Photo, decode

if TYPE_CHECKING:
    from worker.jobs import Localizer

STUB = Model(version="boxlift-bench-stub", network="stub", classes=("thing",))
"""What the worker with the fixed time announces."""


class FixedTime:
    """In place of a localizer: takes `seconds` an image and finds one box, the whole picture."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @property
    def model(self) -> Model:
        """What a worker announces."""
        return STUB

    def tuned(self, tuning: Tuning) -> FixedTime:
        """Itself: nothing can be taught to it."""
        return self

    def localize(
        self,
        images: Sequence[Photo],
        *,
        classes: Sequence[Sequence[int] | None],
        max_boxes: int = 1,
        min_score: float = 0.0,
    ) -> list[list[Detection]]:
        """One box for each image, after the fixed time for all of them."""
        time.sleep(self._seconds * len(images))
        return [[Detection("thing", 0, 0.5, (0.0, 0.0, float(i.width), float(i.height)))] for i in images]


def run_stub(url: str, seconds: float, batch: int, reports: Connection) -> None:
    """A worker on the Redis at `url` until SIGTERM; reports ("ready", its name)."""
    from worker.main import run_worker

    run_worker(url, FixedTime(seconds), batch=batch, ready=lambda name: reports.send(("ready", name)))


class Alone:
    """A localizer without any queue, on pictures that are decoded already."""

    def __init__(self, localizer: Localizer, files: Sequence[Path], images: int, batch: int) -> None:
        photos = [decode(file.read_bytes(), ImageLimits(), file.name) for file in files]
        self._localizer = localizer
        self._work = [photos[number % len(photos)] for number in range(images)]
        self._batch = batch
        self._run(self._work[:batch])  # caches and kernels

    def rate(self) -> float:
        """Images a second of one pass over all."""
        start = time.perf_counter()
        for first in range(0, len(self._work), self._batch):
            self._run(self._work[first : first + self._batch])
        return len(self._work) / (time.perf_counter() - start)

    def _run(self, part: Sequence[Photo]) -> None:
        self._localizer.localize(part, classes=[None] * len(part))
