"""Several objects in one heat map: its hot regions, and what their boxes are worth beside the whole map's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from worker.boxes import Floats
from worker.contract import Box


def below_whole(found: Sequence[Found], sure: Floats, share: float) -> Floats:
    """Scores (B,) in which a box of one region stays below that of its row's whole map: the calibration knows whole
    maps only, and what is left of one beside other objects looks surer to it than it is."""
    capped, whole = sure.copy(), dict[int, float]()
    for place, one in enumerate(found):
        if one.row in whole:
            capped[place] = min(sure[place], whole[one.row]) * one.weight * share
        else:
            whole[one.row] = float(sure[place])
    return capped


@dataclass(frozen=True, slots=True)
class Found:
    """One box of one row before it is scored, in fractions of the image."""

    row: int
    box: Box
    probes: Floats
    heat: Floats
    weight: float
    """1 for the box of the whole row; for that of one region its share of the heat, against the strongest one's."""


def regions(heat: Floats, threshold: float) -> list[tuple[Floats, float]]:
    """Where several hot regions lie apart: the part of the map (h, w) that belongs to each, as 0 or 1, and its heat
    relative to that of the region with most. Every cell belongs to the nearest region. Empty for a single region.
    """
    labels, count = ndimage.label(heat >= threshold * heat.max(), structure=np.ones((3, 3)))
    if count < 2:
        return []
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    owner = labels[tuple(nearest)]
    mass = np.asarray(ndimage.sum_labels(heat, labels, np.arange(1, count + 1)))
    return [((owner == number + 1).astype(heat.dtype), float(mass[number] / mass.max())) for number in range(count)]
