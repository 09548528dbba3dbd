"""Boxes of single regions beside that of the whole map."""

from __future__ import annotations

import numpy as np
import pytest

from worker.parts import Found, Part, regions
from worker.scoring import below_whole

NOTHING = np.zeros(0)


def found(row: int, weight: float | None = None) -> Found:
    part = None if weight is None else Part(NOTHING, weight, 1.0, 0.5, 2)
    return Found(row, (0.0, 0.0, 1.0, 1.0), np.ones((2, 2)), NOTHING, part)


def test_a_region_never_scores_above_its_whole_map() -> None:
    boxes = [found(0), found(1), found(0, 1.0), found(0, 0.5), found(1, 1.0)]
    sure = np.array([0.4, 0.9, 0.8, 0.2, 0.5])
    scores = below_whole(boxes, sure, 0.8)
    assert scores == pytest.approx([0.4, 0.9, 0.8 * 0.4, 0.8 * 0.5 * 0.2, 0.8 * 0.5])
    assert sure.tolist() == [0.4, 0.9, 0.8, 0.2, 0.5]


def test_regions_share_the_map_by_nearness_and_are_weighed_by_heat() -> None:
    heat = np.zeros((8, 8))
    heat[1:3, 1:3], heat[6, 6] = 1.0, 1.0
    large, small = regions(heat, 0.5)
    assert (large.weight, small.weight, large.among, small.split) == (1.0, 0.25, 2, 0.5)
    assert np.array_equal(large.cells + small.cells, np.ones((8, 8)))
    assert (large.cells[2, 2], small.cells[6, 6], large.cells[0, 0], small.cells[7, 7]) == (1, 1, 1, 1)
    assert regions(np.ones((4, 4)), 0.5) == []
