"""Doubtful boxes lean towards the hottest place, sure ones hardly, and boxes beside an image's first not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worker.leaning import lean, placed
from worker.parameters import Parameters
from worker.parts import Found, Part

SIDE = 20


def spot(x: int, y: int) -> np.ndarray:
    """A map that is hottest in one cell, and warm everywhere."""
    heat = np.full((SIDE, SIDE), 0.2)
    heat[y, x] = 1.0
    return heat


def middle(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


BOX = np.array([[0.2, 0.3, 0.6, 0.5]])
HOT = np.array([[(12 + 0.5) / SIDE, (9 + 0.5) / SIDE]])


@pytest.mark.parametrize(("score", "way"), [(0.1, 1.0), (0.44, 1.0), (0.5, 0.25), (0.9, 0.01), (1.0, 0.0)])
def test_how_far_it_leans(score: float, way: float) -> None:
    moved = lean(BOX, spot(12, 9)[None], np.array([score]), 0.45)
    assert middle(moved) == pytest.approx(middle(BOX) + way * (HOT - middle(BOX)), abs=1e-3)
    assert moved[:, 2:] - moved[:, :2] == pytest.approx(BOX[:, 2:] - BOX[:, :2]), "the box keeps its size"


def test_it_stays_within_the_image_and_moves_for_no_cold_map() -> None:
    moved = lean(BOX.repeat(2, 0), np.stack([spot(0, 0), np.zeros((SIDE, SIDE))]), np.zeros(2), 0.45)
    assert moved.min() >= 0.0
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert middle(moved[1:]) == pytest.approx(np.array([[0.5, 0.5]]))


def test_mirrored_maps_lean_mirrored() -> None:
    heat = np.random.default_rng(0).random((SIDE, SIDE))
    one = lean(BOX, heat[None], np.array([0.3]), 0.45)
    other = lean(BOX[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0], heat[None, :, ::-1], np.array([0.3]), 0.45)
    assert other == pytest.approx(one[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0])


def test_only_the_first_box_of_an_image_leans() -> None:
    part = Part(cells=np.ones((SIDE, SIDE)), weight=1.0, peak=1.0, split=0.3, among=2)
    box = (0.2, 0.3, 0.6, 0.5)
    found = [
        Found(row, box, spot(12, 9), None, part if region else None)
        for row, region in ((0, False), (1, False), (2, False), (0, True))
    ]
    images = [0, 0, 1]
    drawn = np.array([one.box for one in found])
    moved = placed(found, np.full(4, 0.2), images, replace(Parameters(), lean=0.45))
    assert (moved != drawn).any(axis=1).tolist() == [True, False, True, False]
    assert (placed(found, np.full(4, 0.2), images, Parameters()) == drawn).all(), "unless the parameters say so"
    assert placed([], np.zeros(0), [], replace(Parameters(), lean=0.45)).shape == (0, 4)
