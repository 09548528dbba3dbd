"""Figures against hand computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worker.evaluation.datasets import Object, Sample
from worker.evaluation.metrics import Found, Outcome, auroc, figures, intervals, per_class, several

LEFT, RIGHT, WHOLE = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def outcome(
    truths: list[tuple[str, tuple[float, ...], int | None]], *found: Found, known: Found | None = None
) -> Outcome:
    objects = tuple(Object(label, box, index) for label, box, index in truths)  # type: ignore[arg-type]
    return Outcome(Sample(Path("a.jpg"), objects), found, known)


def test_single_boxes() -> None:
    outcomes = [
        outcome([("cat", LEFT, 1)], Found(LEFT, 0.9, 1), known=Found(LEFT)),  # right
        outcome([("cat", LEFT, 1)], Found(LEFT, 0.8, 2), known=Found(RIGHT)),  # right box of another class
        outcome([("cat", LEFT, 1), ("cat", RIGHT, 1)], Found(WHOLE, 0.1, 1)),  # IoU 0.4, centre between the two
        outcome([("dog", LEFT, None)], Found((0.0, 0.0, 0.4, 0.6), 0.7)),  # IoU 0.6
        outcome([("dog", LEFT, None)]),  # nothing found
    ]
    got = figures(outcomes)
    assert got["corloc"] == pytest.approx(3 / 5)
    assert got["top1_loc"] == pytest.approx(1 / 3)
    assert got["top1"] == pytest.approx(2 / 3)
    assert got["gt_known_loc"] == pytest.approx(1 / 2)
    assert got["mean_iou"] == pytest.approx((1 + 1 + 0.4 + 0.6 + 0) / 5)
    assert got["box_acc_30"] == pytest.approx(4 / 5)
    assert got["box_acc_70"] == pytest.approx(2 / 5)
    assert got["center_hit"] == pytest.approx(3 / 5)
    assert got["overshoot_rate"] == 0
    assert got["score_auroc"] == 1


def test_overshoot() -> None:
    small = outcome([("cat", (0.2, 0.2, 0.5, 0.5), 1)], Found(WHOLE, 1.0, 1))
    large = outcome([("cat", (0.0, 0.0, 0.8, 0.8), 1)], Found(WHOLE, 1.0, 1))
    assert figures([small, large])["overshoot_rate"] == 0.5


def test_what_the_data_do_not_say_is_none() -> None:
    got = figures([outcome([("dog", LEFT, None)], Found(LEFT, 0.5, 3))])
    assert got["top1_loc"] is got["gt_known_loc"] is got["score_auroc"] is None


def test_auroc_is_the_chance_of_the_right_order() -> None:
    rng = np.random.default_rng(0)
    score, right = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[right] for b in score[~right]]
    assert auroc(score, right) == pytest.approx(np.mean(pairs))


def test_several_objects_each_taken_once() -> None:
    truths = [("cat", LEFT, None), ("dog", RIGHT, None)]
    one = outcome(
        truths, Found(LEFT, 0.9, label="cat"), Found(LEFT, 0.8, label="cat"), Found(RIGHT, 0.7, label="cat")
    )
    got = several([one])
    assert (got["precision"], got["recall"]) == (pytest.approx(2 / 3), 1)
    assert got["f1"] == pytest.approx(4 / 5)
    labelled = several([one], lambda found, label: found.label == label)
    assert labelled["recall"] == 0.5
    assert several([outcome(truths)]) == {"precision": 0, "recall": 0, "f1": 0, "boxes": 0, "objects": 2}


def test_intervals_hold_the_figure_and_narrow_with_more_photos() -> None:
    def some(count: int) -> list[Outcome]:
        return [outcome([("cat", LEFT, 1)], Found(LEFT if k % 3 else RIGHT, 0.5, 1)) for k in range(count)]

    few, many = intervals(some(30), figures, 200)["corloc"], intervals(some(600), figures, 200)["corloc"]
    assert few[0] < 2 / 3 < few[1]
    assert many[0] < 2 / 3 < many[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_classes() -> None:
    rows = per_class([outcome([("cat", LEFT, 1)], Found(LEFT)), outcome([("cat", LEFT, 1)], Found(RIGHT))])
    assert rows == [("cat", 2, 0.5, pytest.approx(0.5))]
