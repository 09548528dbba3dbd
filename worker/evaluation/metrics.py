"""Figures from boxes: how many are right, how right, and whether the score knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.boxes import Box, iou
from worker.evaluation.datasets import Sample

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Found:
    """One box that a method drew, in fractions of the image."""

    box: Box
    score: float | None = None
    """None where the method has none."""
    class_index: int | None = None
    """Of the network; None where the method knows no class."""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method made of one sample."""

    sample: Sample
    found: tuple[Found, ...] = ()
    """Best first."""
    known: tuple[Found, ...] | None = None
    """The boxes for the true class, where the data set names it (GT-known Loc)."""
    error: str | None = None

    @property
    def truths(self) -> Floats:
        """The true boxes (N, 4)."""
        return np.array([item.box for item in self.sample.objects], dtype=np.float64).reshape(-1, 4)

    @property
    def best_iou(self) -> float:
        """IoU of the first box with the true box that it fits best; 0 without a box."""
        return _fit(self.found, self.truths)


Matches = Callable[[Found, str], bool]
"""Does a found box's class mean this label of the data set?"""


@dataclass(frozen=True)
class Columns:
    """What every photo adds to every figure, computed once: a resampled figure only adds these up again."""

    parts: Mapping[str, Floats]
    """Name of a figure → (N,): the figure is their sum …"""
    wholes: Mapping[str, Floats]
    """… over the sum of these (N,); photos that say nothing about a figure have 0 in both."""
    score: Floats | None
    """(S,) scores of the first boxes; None where the method has no scores."""
    right: Flags
    """(S,) whether each of them has IoU ≥ 0.5."""
    photo: npt.NDArray[np.intp]
    """(S,) whose first box it is."""
    boxes: int
    objects: int

    def figures(self) -> dict[str, float | None]:
        """Every figure over all photos; None where the data set or the method does not say.

        Of first boxes, over photos with an object. corloc: share whose box, for the predicted class, has IoU ≥ 0.5
        with a true one; top1_loc: the same, and the class is that of such an object; gt_known_loc: the same as
        corloc for the box of the true class; top1: the class is that of an object; mean_iou; box_acc_30/50/70:
        share at IoU ≥ 0.3/0.5/0.7; center_hit: centre inside a true box; overshoot_rate: the box covers more than
        90 % of the photo and the true ones together less than 50 %; score_auroc: see `auroc`.

        Of all boxes, over all photos: precision, recall and F1 at IoU 0.5. Boxes are taken best first; each takes
        the free true box that it fits best. `_labelled`: the label has to be right as well; `_agnostic`: any
        object will do. boxes and objects are their numbers.
        """
        everything = self.resampled(np.ones((1, len(next(iter(self.parts.values()))))))
        values: dict[str, float | None] = {
            name: None if math.isnan(value[0]) else float(value[0]) for name, value in everything.items()
        }
        return values | {"boxes": float(self.boxes), "objects": float(self.objects)}

    def resampled(self, counts: Floats) -> dict[str, Floats]:
        """Figures (R,) of R samples in which photo n is counts[r, n] times; NaN where nothing is said."""
        names = list(self.parts)
        over = counts @ np.stack([self.parts[name] for name in names], axis=1)
        under = counts @ np.stack([self.wholes[name] for name in names], axis=1)
        ratios = np.where(under > 0, over / np.where(under > 0, under, 1.0), np.nan)
        drawn = {name: ratios[:, place] for place, name in enumerate(names)}
        if self.score is None:
            drawn["score_auroc"] = np.full(len(counts), np.nan)
        else:
            drawn["score_auroc"] = _weighted_auroc(self.score, self.right, counts[:, self.photo])
        return drawn


def columns(outcomes: Sequence[Outcome], matches: Matches | None = None) -> Columns:
    """The columns of a method's outcomes; labelled figures are None without `matches`."""
    scored = any(item.score is not None for one in outcomes for item in one.found)
    classed = any(item.class_index is not None for one in outcomes for item in one.found)
    rows = [_row(one, matches if classed else None, classed=classed) for one in outcomes]
    names = list(rows[0]) if rows else []
    first = [
        index for index, one in enumerate(outcomes) if one.sample.objects or one.found
    ]  # a photo without any object is right without a box, too, and says nothing about scores then
    return Columns(
        parts={name: np.array([row[name][0] for row in rows], dtype=np.float64) for name in names},
        wholes={name: np.array([row[name][1] for row in rows], dtype=np.float64) for name in names},
        score=np.array([first_score(outcomes[index]) for index in first]) if scored else None,
        right=np.array([outcomes[index].best_iou >= 0.5 for index in first], dtype=np.bool_),
        photo=np.array(first, dtype=np.intp),
        boxes=sum(len(one.found) for one in outcomes),
        objects=sum(len(one.sample.objects) for one in outcomes),
    )


def figures(outcomes: Sequence[Outcome], matches: Matches | None = None) -> dict[str, float | None]:
    """`Columns.figures` of a method's outcomes."""
    return columns(outcomes, matches).figures()


def first_score(outcome: Outcome) -> float:
    """Score of the first box; 0 without a box or score."""
    return (outcome.found[0].score or 0.0) if outcome.found else 0.0


def hits(outcome: Outcome, matches: Matches | None = None) -> Flags:
    """Which boxes (N,) are right: taken best first, each takes the free true box that it fits best, IoU ≥ 0.5."""
    right = np.zeros(len(outcome.found), dtype=np.bool_)
    for box, _ in pairs(outcome, matches):
        right[box] = True
    return right


def pairs(outcome: Outcome, matches: Matches | None = None) -> list[tuple[int, int]]:
    """(found box, true box) of every right box; with `matches` the labels have to agree."""
    if not outcome.found or not outcome.sample.objects:
        return []
    fit = iou(np.array([item.box for item in outcome.found]), outcome.truths)
    if matches is not None:
        fit = fit * np.array([[matches(item, o.label) for o in outcome.sample.objects] for item in outcome.found])
    taken = []
    for row in sorted(range(len(fit)), key=lambda index: -(outcome.found[index].score or 0.0)):
        best = int(fit[row].argmax())
        if fit[row, best] >= 0.5:
            fit[:, best] = 0.0
            taken.append((row, best))
    return taken


def auroc(scores: Floats, right: npt.NDArray[np.bool_]) -> float | None:
    """Chance that a right box scores higher than a wrong one, ties counting half; None without both kinds."""
    good, bad = np.sort(scores[right]), scores[~right]
    if not len(good) or not len(bad):
        return None
    below = np.searchsorted(good, bad, side="left")
    upto = np.searchsorted(good, bad, side="right")
    return float(((len(good) - upto) + 0.5 * (upto - below)).mean() / len(good))


def union_area(boxes: Floats) -> float:
    """The area that boxes (N, 4) cover together."""
    if not len(boxes):
        return 0.0
    x, y = np.unique(boxes[:, ::2]), np.unique(boxes[:, 1::2])
    if len(x) < 2 or len(y) < 2:
        return 0.0
    across, down = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
    in_x = (boxes[:, :1] <= across) & (across < boxes[:, 2:3])
    in_y = (boxes[:, 1:2] <= down) & (down < boxes[:, 3:4])
    covered = (in_x[:, None, :] & in_y[:, :, None]).any(0)
    return float((covered * np.outer(np.diff(y), np.diff(x))).sum())


def _row(one: Outcome, matches: Matches | None, *, classed: bool) -> dict[str, tuple[float, float]]:
    """(part, whole) of every figure that one photo adds to."""
    truths, box = one.truths, one.found[0].box if one.found else None
    some = float(len(truths) > 0)
    fits = iou(np.array(box), truths)[0] if box is not None and some else np.zeros(len(truths))
    fit = float(fits.max(initial=0.0))
    indices = [item.class_index for item in one.sample.objects]
    named = float(classed and any(index is not None for index in indices))
    mine = one.found[0].class_index if one.found else None
    agrees = np.array([mine is not None and index == mine for index in indices], dtype=np.bool_)
    row = {
        "corloc": (float(fit >= 0.5), some),
        "top1_loc": (named * float((agrees & (fits >= 0.5)).any()), named),
        "gt_known_loc": (0.0, 0.0) if one.known is None else (float(_fit(one.known, truths) >= 0.5), 1.0),
        "top1": (named * float(agrees.any()), named),
        "mean_iou": (fit, some),
        "box_acc_30": (float(fit >= 0.3), some),
        "box_acc_50": (float(fit >= 0.5), some),
        "box_acc_70": (float(fit >= 0.7), some),
        "center_hit": (float(_centred(box, truths)), some),
        "overshoot_rate": (some * float(_overshoots(box, truths)), some),
    }
    drawn, there = float(len(one.found)), float(len(truths))
    for kind, rule, asked in (("agnostic", None, True), ("labelled", matches, matches is not None)):
        right = float(len(pairs(one, rule))) if asked else 0.0
        row[f"precision_{kind}"] = (right, drawn * asked)
        row[f"recall_{kind}"] = (right, there * asked)
        row[f"f1_{kind}"] = (2 * right, (drawn + there) * asked)
    return row


def _centred(box: Box | None, truths: Floats) -> bool:
    if box is None:
        return False
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inside = (truths[:, 0] <= x) & (x < truths[:, 2]) & (truths[:, 1] <= y) & (y < truths[:, 3])
    return bool(inside.any())


def _overshoots(box: Box | None, truths: Floats) -> bool:
    return box is not None and (box[2] - box[0]) * (box[3] - box[1]) > 0.9 and union_area(truths) < 0.5


def _fit(found: Sequence[Found], truths: Floats) -> float:
    return float(iou(np.array(found[0].box), truths).max(initial=0.0)) if found else 0.0


def _weighted_auroc(score: Floats, right: Flags, weights: Floats) -> Floats:
    """`auroc` (R,) where box s counts weights[r, s] times; NaN without both kinds."""
    if not len(score):
        return np.full(len(weights), np.nan)
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    good = np.add.reduceat(weights[:, order] * right[order], starts, axis=1)
    bad = np.add.reduceat(weights[:, order] * ~right[order], starts, axis=1)
    below = np.cumsum(bad, axis=1) - bad
    pairs_of_both = good.sum(1) * bad.sum(1)
    won = (good * (below + 0.5 * bad)).sum(1)
    return np.asarray(np.where(pairs_of_both > 0, won / np.where(pairs_of_both > 0, pairs_of_both, 1.0), np.nan))
