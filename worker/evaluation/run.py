"""A method over a data set: decode, draw boxes, keep what came out and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from worker.errors import ImageDecodeError, ImageError
from worker.evaluation.datasets import Sample
from worker.evaluation.metrics import Found, Outcome
from worker.images import ImageLimits, Photo, decode
from worker.localizer import Localizer

BATCH = 8
DEFAULT_LIMITS = ImageLimits()


class Method(Protocol):
    """Something that draws boxes."""

    @property
    def name(self) -> str: ...

    def __call__(self, photos: Sequence[Photo], classes: Sequence[Sequence[int] | None]) -> list[tuple[Found, ...]]:
        """Boxes of each photo, best first, in fractions; `classes` compete, all where None."""
        ...


@dataclass
class Ours:
    """A localizer as a method."""

    localizer: Localizer
    name: str = "boxlift"
    max_boxes: int = 1
    min_score: float = 0.0

    def __call__(self, photos: Sequence[Photo], classes: Sequence[Sequence[int] | None]) -> list[tuple[Found, ...]]:
        found = self.localizer.localize(photos, classes=classes, max_boxes=self.max_boxes, min_score=self.min_score)
        return [
            tuple(
                Found(_fractions(item.box, photo), item.score, item.class_index, item.label) for item in detections
            )
            for photo, detections in zip(photos, found, strict=True)
        ]


@dataclass(frozen=True)
class Run:
    """What a method made of a data set."""

    method: str
    outcomes: tuple[Outcome, ...]
    seconds: float
    """The method's own time for all photos: resizing, network, maps and boxes, but not reading the files."""
    failed: tuple[Outcome, ...] = field(default=())
    """Photos that could not be read; they are in no figure."""
    note: str = ""
    """How the method was read, where its text leaves something open."""
    threshold: float | None = None
    """That suited the photos best in hindsight, where the method needs one."""

    @property
    def heading(self) -> str:
        """The method, with the threshold that suited it best."""
        return self.method if self.threshold is None else f"{self.method} @ {self.threshold:g}"

    @property
    def seconds_per_image(self) -> float:
        """Mean over the photos that could be read."""
        return self.seconds / max(len(self.outcomes), 1)


def run(
    method: Method,
    samples: Sequence[Sample],
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    progress: Callable[[int], None] = lambda done: None,
) -> Run:
    """Draw boxes on every sample, in batches as a worker would.

    Photos of one class whose class the data set names get boxes for that class as well, where the predicted one is
    another. Neither these nor a first batch, which pays for what is prepared once, count in `seconds`. `progress`
    is told how many samples are done. Nothing is drawn on photos that cannot be read; they are in `Run.failed`.
    """
    outcomes: list[Outcome] = []
    failed: list[Outcome] = []
    seconds = 0.0
    warm = False
    for batch in _batches(samples):
        readable: list[tuple[Sample, Photo]] = []
        for sample in batch:
            try:
                readable.append((sample, _read(sample, limits)))
            except ImageError as error:
                failed.append(Outcome(sample, error=str(error)))
        if readable:
            photos = [photo for _, photo in readable]
            if not warm:
                method(photos, [None] * len(photos))
                warm = True
            start = time.perf_counter()
            found = method(photos, [None] * len(photos))
            seconds += time.perf_counter() - start
            truly = _for_known_class(method, readable, found)
            outcomes += [Outcome(s, f, k) for (s, _), f, k in zip(readable, found, truly, strict=True)]
        progress(len(outcomes) + len(failed))
    return Run(method.name, tuple(outcomes), seconds, tuple(failed))


def _for_known_class(
    method: Method, readable: Sequence[tuple[Sample, Photo]], found: Sequence[tuple[Found, ...]]
) -> list[tuple[Found, ...] | None]:
    """Boxes for the true class; a method that knows no class draws the same ones for all."""
    known: list[tuple[Found, ...] | None] = [None] * len(readable)
    again: list[tuple[int, int]] = []
    for number, (sample, _) in enumerate(readable):
        indices = {item.class_index for item in sample.objects}
        if len(indices) != 1 or None in indices:
            continue
        index = next(iter(indices))
        if found[number] and found[number][0].class_index in (index, None):
            known[number] = found[number]
        elif index is not None:
            again.append((number, index))
    boxes = method([readable[number][1] for number, _ in again], [[index] for _, index in again]) if again else []
    for (number, _), drawn in zip(again, boxes, strict=True):
        known[number] = drawn
    return known


def _batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), BATCH):
        yield samples[start : start + BATCH]


def _read(sample: Sample, limits: ImageLimits) -> Photo:
    try:
        data = sample.path.read_bytes()
    except OSError as error:
        raise ImageDecodeError(f"{sample.path.name} cannot be read: {error.strerror}") from None
    return decode(data, limits, sample.path.name)


def _fractions(box: tuple[float, float, float, float], photo: Photo) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0 / photo.width, y0 / photo.height, x1 / photo.width, y1 / photo.height
