"""Overlap and suppression of boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker import boxes


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
