"""Boxes from heat maps whose answer is known, and what boxes have in common."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import boxes


def rectangle(x0: int, y0: int, x1: int, y1: int, size: int = 40) -> np.ndarray:
    heat = np.zeros((size, size))
    heat[y0:y1, x0:x1] = 1
    return heat


cells = st.tuples(st.integers(0, 39), st.integers(0, 39)).filter(lambda ends: ends[0] < ends[1])


@given(cells, cells)
def test_a_rectangle_comes_back(across: tuple[int, int], down: tuple[int, int]) -> None:
    (x0, x1), (y0, y1) = across, down
    box = boxes.hot_box(rectangle(x0, y0, x1, y1), 0.5)
    assert box == pytest.approx((x0 / 40, y0 / 40, x1 / 40, y1 / 40))


def test_edges_lie_between_cells() -> None:
    x = np.arange(80) + 0.5
    bump = np.exp(-0.5 * ((x - 41.3) / 8) ** 2)
    box = boxes.hot_box(np.outer(np.ones(80), bump), 0.5)
    half = 8 * np.sqrt(2 * np.log(2))
    peak = bump.max()
    assert box is not None
    assert box[0] * 80 == pytest.approx(41.3 - half, abs=0.05)
    assert box[2] * 80 == pytest.approx(41.3 + half, abs=0.05)
    assert peak == pytest.approx(1, abs=0.01)
    assert (box[1], box[3]) == (0, 1)


def test_hot_edges_reach_the_border() -> None:
    assert boxes.hot_box(np.ones((5, 9)), 0.5) == (0, 0, 1, 1)


def test_nothing_hot() -> None:
    assert boxes.hot_box(np.zeros((8, 8)), 0.5) is None
    assert boxes.component_boxes(np.zeros((8, 8)), 0.5) == []


def test_the_union_covers_every_region_components_keep_them_apart() -> None:
    heat = rectangle(2, 2, 10, 10) + 0.8 * rectangle(20, 25, 36, 38)
    assert boxes.hot_box(heat, 0.5) == pytest.approx((2 / 40, 2 / 40, 36 / 40, 38 / 40), abs=0.01)
    (first, large), (second, small) = boxes.component_boxes(heat, 0.5)
    assert first == pytest.approx((20 / 40, 25 / 40, 36 / 40, 38 / 40), abs=0.01)
    assert second == pytest.approx((2 / 40, 2 / 40, 10 / 40, 10 / 40), abs=0.01)
    assert large + small == pytest.approx(1)
    assert large > small


def test_touching_corners_are_one_region() -> None:
    heat = rectangle(2, 2, 10, 10) + rectangle(10, 10, 20, 20)
    assert len(boxes.component_boxes(heat, 0.5)) == 1


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [5, 5, 5, 9], [2, 2, 1, 1]])
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2]])
    np.testing.assert_allclose(boxes.iou(a, b), [[1 / 7, 1], [0, 1 / 4], [0, 0], [0, 0]])


box = st.tuples(*[st.floats(0, 1)] * 4)


@given(st.lists(box, min_size=1, max_size=5), st.lists(box, min_size=1, max_size=5))
def test_iou_is_symmetric_and_bounded(first: list[boxes.Box], second: list[boxes.Box]) -> None:
    shared = boxes.iou(np.array(first), np.array(second))
    assert shared.min() >= 0
    assert shared.max() <= 1 + 1e-12
    np.testing.assert_allclose(shared, boxes.iou(np.array(second), np.array(first)).T)


def test_suppression_keeps_the_best_of_each_heap() -> None:
    many = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 1, 10, 11]])
    assert boxes.suppress(many, np.array([0.5, 0.9, 0.1, 0.6]), 0.5) == [1, 2]
    assert boxes.suppress(many, np.array([0.5, 0.9, 0.1, 0.6]), 0.99) == [1, 3, 0, 2]
    assert boxes.suppress(np.zeros((0, 4)), np.zeros(0), 0.5) == []
