"""The same figures for parts of a data set: by class, and by the objects' size and place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from worker.boxes import iou
from worker.evaluation.datasets import Object
from worker.evaluation.metrics import Matches, Outcome, pairs

SMALL, LARGE = 0.1, 0.4
"""Areas, as fractions of the photo: below the first an object is small, from the second on large."""
EDGE = 0.01
"""An object that comes this close to an edge, as a fraction of the side, touches it."""

STRATA: dict[str, Callable[[Object], bool]] = {
    "small (< 10 % of the photo)": lambda item: _area(item) < SMALL,
    "medium": lambda item: SMALL <= _area(item) < LARGE,
    "large (≥ 40 %)": lambda item: _area(item) >= LARGE,
    "touches the border": lambda item: _touches(item),
    "clear of the border": lambda item: not _touches(item),
}


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of the objects of one kind."""

    name: str
    photos: int
    """That have such an object."""
    objects: int
    corloc: float
    """Share of these photos whose first box has IoU ≥ 0.5 with such an object."""
    mean_iou: float
    """Of the first box with the such object that it fits best."""
    recall_agnostic: float
    """Share of these objects that any box has found."""
    precision_labelled: float | None = None
    """Of the boxes whose class means this label; None where boxes have no class, or none was drawn."""
    recall_labelled: float | None = None
    f1_labelled: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def per_class(outcomes: Sequence[Outcome], matches: Matches | None = None) -> list[Group]:
    """Figures for every label of the data set, most photos first.

    A photo counts under every label that it holds, with that label's objects alone. With `matches` also precision,
    recall and F1 of the boxes whose class means the label.
    """
    photos = Counter(label for one in outcomes for label in {item.label for item in one.sample.objects})
    labelled = _labelled(outcomes, matches, list(photos)) if matches is not None else {}
    by_label: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        for label in {item.label for item in one.sample.objects}:
            by_label[label].append(one)
    found = {id(one): {truth for _, truth in pairs(one)} for one in outcomes}

    def named(label: str) -> Callable[[Object], bool]:
        return lambda item: item.label == label

    rows = [
        _group(label, by_label[label], named(label), found, labelled.get(label))
        for label in sorted(photos, key=lambda label: (-photos[label], label))
    ]
    return [row for row in rows if row is not None]


def strata(outcomes: Sequence[Outcome]) -> list[Group]:
    """Figures by size and place of the objects; kinds that no photo has are left out."""
    found = {id(one): {truth for _, truth in pairs(one)} for one in outcomes}
    rows = [_group(name, outcomes, belongs, found, None) for name, belongs in STRATA.items()]
    return [row for row in rows if row is not None]


def _group(
    name: str,
    outcomes: Sequence[Outcome],
    belongs: Callable[[Object], bool],
    found: dict[int, set[int]],
    labelled: tuple[int, int, int] | None,
) -> Group | None:
    fits, objects, recalled = [], 0, 0
    for one in outcomes:
        mine = [place for place, item in enumerate(one.sample.objects) if belongs(item)]
        if not mine:
            continue
        objects += len(mine)
        recalled += len(found[id(one)] & set(mine))
        fits.append(float(iou(np.array(one.found[0].box), one.truths[mine]).max()) if one.found else 0.0)
    if not fits:
        return None
    right, drawn, there = labelled or (0, 0, 0)
    return Group(
        name=name,
        photos=len(fits),
        objects=objects,
        corloc=float(np.mean(np.array(fits) >= 0.5)),
        mean_iou=float(np.mean(fits)),
        recall_agnostic=recalled / objects,
        precision_labelled=right / drawn if drawn else None,
        recall_labelled=right / there if labelled else None,
        f1_labelled=2 * right / (drawn + there) if labelled else None,
    )


def _labelled(
    outcomes: Sequence[Outcome], matches: Matches, labels: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """Label → right boxes, boxes whose class means it, and objects."""
    totals: dict[str, tuple[int, int, int]] = {}
    for label in labels:
        right = drawn = there = 0
        for one in outcomes:
            mine = tuple(item for item in one.found if matches(item, label))
            objects = tuple(item for item in one.sample.objects if item.label == label)
            drawn, there = drawn + len(mine), there + len(objects)
            if mine and objects:
                right += len(pairs(Outcome(replace(one.sample, objects=objects), mine)))
        totals[label] = right, drawn, there
    return totals


def _area(item: Object) -> float:
    x0, y0, x1, y1 = item.box
    return (x1 - x0) * (y1 - y0)


def _touches(item: Object) -> bool:
    x0, y0, x1, y1 = item.box
    return min(x0, y0) <= EDGE or max(x1, y1) >= 1 - EDGE
