"""Figures from boxes: how many are right, how right, and whether the score knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.boxes import Box, area, iou
from worker.evaluation.datasets import Sample

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """One box that a method drew, in fractions of the image."""

    box: Box
    score: float = 0.0
    class_index: int | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method made of one sample."""

    sample: Sample
    found: tuple[Found, ...] = ()
    """Best first."""
    known: Found | None = None
    """The box for the true class, where the data set names it (GT-known Loc)."""
    error: str | None = None

    @property
    def truths(self) -> Floats:
        """The true boxes (N, 4)."""
        return np.array([item.box for item in self.sample.objects], dtype=np.float64).reshape(-1, 4)

    @property
    def best_iou(self) -> float:
        """IoU of the first box with the true box that it fits best; 0 without a box."""
        return _fit(self.found[0], self) if self.found else 0.0

    @property
    def centred(self) -> bool:
        """The centre of the first box lies inside a true box (the predecessor paper's measure)."""
        if not self.found:
            return False
        x0, y0, x1, y1 = self.found[0].box
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        truths = self.truths
        inside = (truths[:, 0] <= x) & (x < truths[:, 2]) & (truths[:, 1] <= y) & (y < truths[:, 3])
        return bool(inside.any())

    @property
    def overshoots(self) -> bool:
        """The first box covers more than 90 % of the image, the box around all true ones less than 50 %."""
        if not self.found:
            return False
        truths = self.truths
        around = np.array([[*truths[:, :2].min(0), *truths[:, 2:].max(0)]])
        return bool(area(np.array([self.found[0].box]))[0] > 0.9 and area(around)[0] < 0.5)

    @property
    def class_right(self) -> bool | None:
        """The first box's class is that of an object; None where the data set does not name classes by index."""
        indices = {item.class_index for item in self.sample.objects} - {None}
        if not indices:
            return None
        return bool(self.found) and self.found[0].class_index in indices


def figures(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """The figures of single boxes over a data set; None where the data set does not say.

    corloc: share of photos whose first box, for the predicted class, has IoU ≥ 0.5 with a true one;
    top1_loc: the same and the class is right; gt_known_loc: the same for the box of the true class;
    mean_iou; box_acc_30/50/70: share at IoU ≥ 0.3/0.5/0.7; center_hit; overshoot_rate; score_auroc.
    """
    fit = np.array([one.best_iou for one in outcomes])
    right = fit >= 0.5
    classes = [one.class_right for one in outcomes]
    named = [index for index, known in enumerate(classes) if known is not None]
    known = [_fit(one.known, one) >= 0.5 for one in outcomes if one.known is not None]
    scores = np.array([one.found[0].score if one.found else 0.0 for one in outcomes])
    return {
        "corloc": _mean(right),
        "top1_loc": _mean([bool(right[index] and classes[index]) for index in named]),
        "gt_known_loc": _mean(known),
        "top1": _mean([bool(classes[index]) for index in named]),
        "mean_iou": _mean(fit),
        "box_acc_30": _mean(fit >= 0.3),
        "box_acc_50": _mean(right),
        "box_acc_70": _mean(fit >= 0.7),
        "center_hit": _mean([one.centred for one in outcomes]),
        "overshoot_rate": _mean([one.overshoots for one in outcomes]),
        "score_auroc": auroc(scores, right),
    }


Matches = Callable[[Found, str], bool]
"""Does a found box's class mean this label of the data set?"""


def several(outcomes: Sequence[Outcome], matches: Matches | None = None) -> dict[str, float]:
    """Precision, recall and F1 at IoU 0.5 over all boxes of all photos, and how many boxes there were.

    Boxes are taken best first; each takes the free true box that it fits best. With `matches` the label has to be
    right as well; without it any object will do (class-agnostic).
    """
    hits = sum(_hits(one, matches) for one in outcomes)
    drawn = sum(len(one.found) for one in outcomes)
    there = sum(len(one.sample.objects) for one in outcomes)
    return {
        "precision": hits / drawn if drawn else 0.0,
        "recall": hits / there if there else 0.0,
        "f1": 2 * hits / (drawn + there) if drawn + there else 0.0,
        "boxes": float(drawn),
        "objects": float(there),
    }


def _hits(outcome: Outcome, matches: Matches | None) -> int:
    if not outcome.found:
        return 0
    fit = iou(np.array([item.box for item in outcome.found]), outcome.truths)
    if matches is not None:
        fit = fit * np.array([[matches(item, o.label) for o in outcome.sample.objects] for item in outcome.found])
    hits = 0
    for row in sorted(range(len(fit)), key=lambda index: -outcome.found[index].score):
        best = int(fit[row].argmax())
        if fit[row, best] >= 0.5:
            fit[:, best] = 0.0
            hits += 1
    return hits


def auroc(scores: Floats, right: npt.NDArray[np.bool_]) -> float | None:
    """Chance that a right box scores higher than a wrong one, ties counting half; None without both kinds."""
    good, bad = np.sort(scores[right]), scores[~right]
    if not len(good) or not len(bad):
        return None
    below = np.searchsorted(good, bad, side="left")
    upto = np.searchsorted(good, bad, side="right")
    return float(((len(good) - upto) + 0.5 * (upto - below)).mean() / len(good))


def intervals(
    outcomes: Sequence[Outcome],
    figure: Callable[[Sequence[Outcome]], Mapping[str, float | None]],
    rounds: int = 500,
) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals over photos of every figure that `figure` computes (percentiles of `rounds`)."""
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {}
    for _ in range(rounds):
        picked = [outcomes[index] for index in rng.integers(0, len(outcomes), len(outcomes))]
        for name, value in figure(picked).items():
            if value is not None:
                drawn.setdefault(name, []).append(value)
    return {name: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975))) for name, v in drawn.items()}


def per_class(outcomes: Sequence[Outcome]) -> list[tuple[str, int, float, float]]:
    """(label, photos, corloc, mean IoU) of every label that a photo's first object has, most photos first."""
    groups: dict[str, list[float]] = {}
    for one in outcomes:
        groups.setdefault(one.sample.objects[0].label, []).append(one.best_iou)
    rows = [(label, len(f), float(np.mean(np.array(f) >= 0.5)), float(np.mean(f))) for label, f in groups.items()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def _fit(found: Found, outcome: Outcome) -> float:
    return float(iou(np.array(found.box), outcome.truths).max(initial=0.0))


def _mean(values: Sequence[bool] | npt.NDArray[np.bool_] | Floats) -> float | None:
    mean = float(np.mean(values)) if len(values) else math.nan
    return None if math.isnan(mean) else mean
