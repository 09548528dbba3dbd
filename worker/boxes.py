"""What boxes have in common: overlap, area, suppression. Boxes are half-open (x0, y0, x1, y1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Box = tuple[float, float, float, float]


def as_box(values: Floats) -> Box:
    """Four numbers of an array as a plain tuple."""
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


def iou(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union of every box (N, 4) with every other (M, 4): (N, M); 0 where both are empty."""
    first, second = np.asarray(boxes, dtype=np.float64), np.asarray(others, dtype=np.float64)
    first, second = first.reshape(-1, 4), second.reshape(-1, 4)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = area(first)[:, None] + area(second)[None, :] - shared
    return np.asarray(shared / np.where(union > 0, union, 1.0))


def area(boxes: Floats) -> Floats:
    """Areas (N,) of boxes (N, 4); 0 for inverted ones."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return np.asarray(sides.prod(axis=1))


def suppress(boxes: Floats, scores: Floats, overlap: float) -> list[int]:
    """Greedy non-maximum suppression: indices that stay, best score first."""
    order = list(np.argsort(-np.asarray(scores), kind="stable"))
    shared = iou(boxes, boxes)
    kept: list[int] = []
    for index in order:
        if all(shared[index, other] <= overlap for other in kept):
            kept.append(int(index))
    return kept


def select(boxes: Floats, scores: Floats, *, overlap: float, least: float) -> list[int]:
    """As `suppress`, without boxes that score less than `least`; the first one needs no score."""
    kept = suppress(boxes, scores, overlap)
    return kept[:1] + [index for index in kept[1:] if scores[index] >= least]
