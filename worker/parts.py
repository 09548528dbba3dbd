"""Several objects in one heat map: its hot regions, and the boxes that are found in all of it and in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from worker.boxes import Floats
from worker.contract import Box


@dataclass(frozen=True, slots=True)
class Part:
    """One of several hot regions of a heat map (h, w), and the cells that are nearest to it."""

    cells: Floats
    """(h, w) 1 in these cells, 0 elsewhere."""
    weight: float
    """Its heat, relative to that of the region with most."""
    peak: float
    """Its hottest cell, relative to the map's."""
    split: float
    """The fraction of the map's maximum below which the heat falls between the regions."""
    among: int
    """How many regions there are."""


@dataclass(frozen=True, slots=True)
class Found:
    """One box of one row before it is scored, in fractions of the image."""

    row: int
    box: Box
    heat: Floats
    """(h, w) the heat that the box is of; its maximum is 1."""
    probes: Floats | None
    """(K, 4), where the score wants them."""
    part: Part | None
    """None for the box of the row's whole map."""


def regions(heat: Floats, threshold: float) -> list[Part]:
    """Where several regions of a map (h, w) lie apart, hot from `threshold` times its maximum: each of them.

    Every cell belongs to the nearest region. Empty for a single region.
    """
    labels, count = ndimage.label(heat >= threshold * heat.max(), structure=np.ones((3, 3)))
    if count < 2:
        return []
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    owner = labels[tuple(nearest)]
    numbers = np.arange(1, count + 1)
    mass = np.asarray(ndimage.sum_labels(heat, labels, numbers))
    peaks = np.asarray(ndimage.maximum(heat, labels, numbers)) / heat.max()
    return [
        Part(
            cells=(owner == number).astype(heat.dtype),
            weight=float(mass[number - 1] / mass.max()),
            peak=float(peaks[number - 1]),
            split=threshold,
            among=count,
        )
        for number in numbers
    ]
