"""Doubtful boxes lean towards the hottest place, sure ones hardly, and where several are wanted none does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.pipeline.conftest import picture
from worker.leaning import lean
from worker.localizer import Localizer
from worker.networks import Network
from worker.parameters import Parameters

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


def test_without_a_limit_nothing_leans() -> None:
    assert (lean(BOX, spot(12, 9)[None], np.array([0.1]), 0.0) == BOX).all()


def test_only_single_boxes_lean(network: Network, plain: Parameters) -> None:
    """Where several are wanted, the first stays where the same parameters draw it without a lean."""
    image = picture((64, 64), ("green", (4, 4, 40, 40)), ("green", (44, 44, 60, 60)))
    upright, leaning = Localizer(network, plain), Localizer(network, replace(plain, lean=1.1))
    [[one]], [[other]] = upright.localize([image]), leaning.localize([image])
    assert one.box != other.box
    assert leaning.localize([image], max_boxes=5) == upright.localize([image], max_boxes=5)
