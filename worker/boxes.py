"""A heat map to boxes, and what boxes have in common. Boxes are half-open (x0, y0, x1, y1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.floating[Any]]
Box = tuple[float, float, float, float]

_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def hot_box(heat: Floats, threshold: float) -> Box | None:
    """The smallest box around all cells of `heat` (h, w) that are hot, in fractions of width and height.

    A cell is hot from `threshold` × the maximum. An edge lies where the heat, interpolated between the centres
    of the last hot cell and its cold neighbour, crosses the threshold. None where nothing is hot.
    """
    level = threshold * float(heat.max(initial=0.0))
    if level <= 0:
        return None
    x0, x1 = _extent(heat.max(axis=0), level)
    y0, y1 = _extent(heat.max(axis=1), level)
    return x0, y0, x1, y1


def component_boxes(heat: Floats, threshold: float) -> list[tuple[Box, float]]:
    """Boxes around the connected hot regions, each with its share of all the heat; largest share first."""
    level = threshold * float(heat.max(initial=0.0))
    if level <= 0:
        return []
    labels, count = ndimage.label(heat >= level, structure=_NEIGHBOURS)
    found = []
    for number in range(1, count + 1):
        # The cold surroundings belong to the region (edges are interpolated), other regions do not.
        own = np.where((labels == number) | (labels == 0), heat, 0.0)
        near = ndimage.binary_dilation(labels == number, structure=_NEIGHBOURS)
        own = np.where(near, own, 0.0)
        x0, x1 = _extent(own.max(axis=0), level)
        y0, y1 = _extent(own.max(axis=1), level)
        found.append(((x0, y0, x1, y1), float(heat[labels == number].sum() / heat.sum())))
    return sorted(found, key=lambda item: -item[1])


def _extent(profile: Floats, level: float) -> tuple[float, float]:
    """Where a profile's outermost crossings of `level` lie, as fractions of its length."""
    hot = np.flatnonzero(profile >= level)
    first, last, size = int(hot[0]), int(hot[-1]), len(profile)
    start = 0.0 if first == 0 else first + 0.5 - _step(profile[first], profile[first - 1], level)
    end = float(size) if last == size - 1 else last + 0.5 + _step(profile[last], profile[last + 1], level)
    return start / size, end / size


def _step(hot: float, cold: float, level: float) -> float:
    """Distance from the hot cell's centre to the crossing, in cells."""
    return float((hot - level) / (hot - cold)) if hot > cold else 0.5


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
