"""Figures of a project's corrections: by label, by version, over time, and what a score was worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from backend.corrections import Correction
from backend.review.matching import ACCEPTED, FATES, MOVED, Handled, handled
from backend.review.savings import Costs, Savings, savings

GROUPS = 8
"""Of the trend: parts of the tasks in the order of their annotation, alike in size."""
LEAST = 10
"""Tasks that a part of the trend has at least."""
BINS = 10
"""Of the scores: tenths."""
DEFAULT = Costs()
Z95 = 1.959964
"""Of the normal distribution, for intervals of 95 %."""


@dataclass(frozen=True)
class Tally:
    """What became of some boxes."""

    name: str
    """A label, a version, or a time."""
    counts: Mapping[str, int]
    """By fate."""
    tasks: int
    moved_iou: float | None
    """Mean IoU of moved boxes with what people made of them; None where none was."""
    mean_iou: float | None
    """Of all our boxes that people kept, under whatever label."""

    @property
    def ours(self) -> int:
        """Boxes of ours that people decided on."""
        return sum(self.counts.get(fate, 0) for fate in FATES if fate not in ("added", "skipped"))

    @property
    def accepted(self) -> float | None:
        """Share of ours that nobody had to touch; None without any."""
        return self.counts.get(ACCEPTED, 0) / self.ours if self.ours else None

    right: int = 0
    """Of ours: right label, and IoU of 0.5 or more."""

    @property
    def accuracy(self) -> float | None:
        """Share of ours that were right; None without any."""
        return self.right / self.ours if self.ours else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"ours": self.ours, "accepted": self.accepted, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Bin:
    """Boxes whose score lies in one tenth."""

    low: float
    high: float
    boxes: int
    score: float
    """Their mean score."""
    right: float
    """Share of them that was right."""
    interval: tuple[float, float]
    """Of that share, 95 % (Wilson)."""


@dataclass(frozen=True)
class Calibration:
    """Whether a score of 0.8 means that 8 of 10 are right."""

    bins: tuple[Bin, ...]
    boxes: int
    error: float | None
    """Expected calibration error: mean distance of score and share, weighted by boxes (Guo et al., 2017)."""
    brier: float | None
    """Mean squared distance of score and outcome (Brier, 1950); 0.25 is what a constant 0.5 gets."""


@dataclass(frozen=True)
class Review:
    """Everything that the report tells."""

    project: int
    tasks: int
    """Annotated tasks, skipped ones included."""
    skipped: int
    without_prediction: int
    """Of the annotated ones: those that showed no prediction of ours."""
    total: Tally
    labels: tuple[Tally, ...]
    versions: tuple[Tally, ...]
    trend: tuple[Tally, ...]
    calibration: Calibration
    savings: Savings
    costs: Costs
    lead_time: float | None
    """Median seconds that people took for a task, as Label Studio counted them; None where it did not."""
    boxes: tuple[Handled, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, without the boxes."""
        saved = asdict(self.savings) | {"saved": self.savings.saved, "share": self.savings.share}
        return {
            "project": self.project,
            "tasks": self.tasks,
            "skipped": self.skipped,
            "without_prediction": self.without_prediction,
            "total": self.total.to_dict(),
            "labels": [tally.to_dict() for tally in self.labels],
            "versions": [tally.to_dict() for tally in self.versions],
            "trend": [tally.to_dict() for tally in self.trend],
            "calibration": asdict(self.calibration),
            "savings": saved | {"seconds": asdict(self.costs)},
            "lead_time": self.lead_time,
        }


def review(project: int, corrections: Sequence[Correction], costs: Costs = DEFAULT) -> Review:
    """The figures of a project's corrections."""
    by_time = sorted(corrections, key=lambda correction: (correction.at, correction.task))
    boxes = [box for correction in by_time for box in handled(correction)]
    shown = [correction for correction in by_time if correction.prediction is not None]
    times = [correction.lead_time for correction in by_time if correction.lead_time and not correction.skipped]
    return Review(
        project=project,
        tasks=len(by_time),
        skipped=sum(correction.skipped for correction in by_time),
        without_prediction=len(by_time) - len(shown),
        total=tally("all", boxes),
        labels=tuple(_groups(boxes, lambda box: box.label or "(no label)")),
        versions=tuple(_groups(boxes, _version)),
        trend=tuple(_trend(shown, boxes)),
        calibration=calibration(boxes),
        savings=savings(boxes, costs),
        costs=costs,
        lead_time=median(times) if times else None,
        boxes=tuple(boxes),
    )


def tally(name: str, boxes: Sequence[Handled]) -> Tally:
    """Counts of some boxes."""
    counts = Counter(box.fate for box in boxes)
    moved = [box.iou for box in boxes if box.fate == MOVED]
    kept = [box.iou for box in boxes if box.ours and box.theirs]
    return Tally(
        name=name,
        counts={fate: counts[fate] for fate in FATES},
        tasks=len({box.correction.task for box in boxes}),
        moved_iou=fmean(moved) if moved else None,
        mean_iou=fmean(kept) if kept else None,
        right=sum(box.right for box in boxes),
    )


def _version(box: Handled) -> str:
    return box.correction.prediction.version if box.correction.prediction else ""


def _groups(boxes: Sequence[Handled], name: Any) -> Iterable[Tally]:
    """A tally for each name, in the order of first appearance for versions, most boxes first otherwise."""
    groups: dict[str, list[Handled]] = {}
    for box in boxes:
        groups.setdefault(name(box), []).append(box)
    order = groups if name is _version else sorted(groups, key=lambda key: (-len(groups[key]), key))
    return [tally(key, groups[key]) for key in order]


def _trend(corrections: Sequence[Correction], boxes: Sequence[Handled]) -> list[Tally]:
    """Tasks in the order of their annotation, in parts alike in size."""
    parts = max(1, min(GROUPS, len(corrections) // LEAST))
    found = []
    for number in range(parts):
        first, last = (len(corrections) * n // parts for n in (number, number + 1))
        part = corrections[first:last]
        if part:
            tasks = {correction.task for correction in part}
            times = f"{part[0].at:%Y-%m-%d %H:%M} to {part[-1].at:%Y-%m-%d %H:%M}"
            found.append(tally(times, [box for box in boxes if box.correction.task in tasks]))
    return found


def calibration(boxes: Iterable[Handled]) -> Calibration:
    """What scores were worth, over boxes of ours with a score that people decided on."""
    scored = [
        (min(max(box.score, 0.0), 1.0), box.right)
        for box in boxes
        if box.score is not None and box.fate != "skipped"
    ]
    bins = []
    for number in range(BINS):
        inside = [pair for pair in scored if min(BINS - 1, int(pair[0] * BINS)) == number]
        if inside:
            right = sum(good for _, good in inside)
            score = fmean(score for score, _ in inside)
            interval = wilson(right, len(inside))
            bins.append(Bin(number / BINS, (number + 1) / BINS, len(inside), score, right / len(inside), interval))
    return Calibration(
        bins=tuple(bins),
        boxes=len(scored),
        error=sum(part.boxes * abs(part.score - part.right) for part in bins) / len(scored) if scored else None,
        brier=fmean((score - good) ** 2 for score, good in scored) if scored else None,
    )


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    share, z = hits / of, Z95
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)
