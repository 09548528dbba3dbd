"""Figures against hand computation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worker.evaluation.bootstrap import _counts, compared, draws, intervals
from worker.evaluation.datasets import Object, Sample
from worker.evaluation.groups import per_class, strata
from worker.evaluation.metrics import Found, Outcome, auroc, columns, figures, hits, union_area

LEFT, RIGHT, WHOLE = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def outcome(
    truths: list[tuple[str, tuple[float, ...], int | None]], *found: Found, known: tuple[Found, ...] | None = None
) -> Outcome:
    objects = tuple(Object(label, box, index) for label, box, index in truths)  # type: ignore[arg-type]
    return Outcome(Sample(Path("a.jpg"), objects), found, known)


def test_single_boxes() -> None:
    outcomes = [
        outcome([("cat", LEFT, 1)], Found(LEFT, 0.9, 1), known=(Found(LEFT),)),  # right
        outcome([("cat", LEFT, 1)], Found(LEFT, 0.8, 2), known=(Found(RIGHT),)),  # right box of another class
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


def test_overshoot_is_of_what_the_objects_cover_together() -> None:
    corners = [("cat", (0.0, 0.0, 0.2, 0.2), 1), ("cat", (0.8, 0.8, 1.0, 1.0), 1)]
    assert figures([outcome(corners, Found(WHOLE, 1.0, 1))])["overshoot_rate"] == 1
    assert union_area(np.array([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]])) == pytest.approx(0.375)


def test_the_right_class_is_that_of_the_object_in_the_box() -> None:
    one = outcome([("cat", LEFT, 1), ("dog", RIGHT, 2)], Found(LEFT, 0.9, 2))
    got = figures([one])
    assert (got["corloc"], got["top1"], got["top1_loc"]) == (1, 1, 0)


def test_what_the_data_do_not_say_is_none() -> None:
    got = figures([outcome([("dog", LEFT, None)], Found(LEFT, 0.5, 3))])
    assert got["top1_loc"] is got["gt_known_loc"] is got["score_auroc"] is None


def test_what_a_method_does_not_know_is_none() -> None:
    truths = [("cat", LEFT, 1)]
    blind = [outcome(truths, Found(LEFT)), outcome(truths, Found(RIGHT))]
    got = figures(blind, lambda found, label: True)
    assert got["corloc"] == 0.5
    assert [got[name] for name in ("top1", "top1_loc", "score_auroc", "f1_labelled", "precision_labelled")] == [
        None
    ] * 5
    assert "score_auroc" not in intervals(draws(columns(blind), 20))


def test_photos_without_objects_count_for_precision_alone() -> None:
    right = outcome([("cat", LEFT, 1)], Found(LEFT, 0.9, 1))
    got = figures([right, outcome([], Found(WHOLE, 0.4, 1)), outcome([])])
    assert (got["corloc"], got["mean_iou"], got["recall_agnostic"]) == (1, 1, 1)
    assert got["precision_agnostic"] == 0.5
    assert got["score_auroc"] == 1  # the box on the empty photo is a wrong one, and scores lower


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
    got = figures([one], lambda found, label: found.label == label)
    assert (got["precision_agnostic"], got["recall_agnostic"]) == (pytest.approx(2 / 3), 1)
    assert got["f1_agnostic"] == pytest.approx(4 / 5)
    assert got["recall_labelled"] is None  # no box has a class
    classed = outcome(truths, *(replace(item, class_index=1) for item in one.found))
    assert figures([classed], lambda found, label: found.label == label)["recall_labelled"] == 0.5
    assert hits(one).tolist() == [True, False, True]
    nothing = figures([outcome(truths)])
    assert (nothing["precision_agnostic"], nothing["recall_agnostic"], nothing["f1_agnostic"]) == (None, 0, 0)
    assert (nothing["boxes"], nothing["objects"]) == (0, 2)


def test_intervals_hold_the_figure_and_narrow_with_more_photos() -> None:
    def some(count: int) -> list[Outcome]:
        return [outcome([("cat", LEFT, 1)], Found(LEFT if k % 3 else RIGHT, 0.5, 1)) for k in range(count)]

    few, many = (intervals(draws(columns(some(count)), 200))["corloc"] for count in (30, 600))
    assert few[0] < 2 / 3 < few[1]
    assert many[0] < 2 / 3 < many[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_draws_are_figures_of_photos_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    truths = [("cat", LEFT, 1), ("dog", RIGHT, 2)]
    boxes = (LEFT, RIGHT, WHOLE)
    some = [
        outcome(
            truths[: int(rng.integers(0, 3))],
            *(
                Found(boxes[int(rng.integers(3))], float(rng.integers(4)) / 4, 1)
                for _ in range(int(rng.integers(3)))
            ),
        )
        for _ in range(12)
    ]
    monkeypatch.setattr("worker.evaluation.bootstrap._CELLS", 50)  # several blocks
    got = draws(columns(some), 9)
    counts = np.concatenate(list(_counts(12, 9)))
    assert counts.sum(1).tolist() == [12] * 9
    for number, row in enumerate(counts.astype(int)):
        again = [one for one, count in zip(some, row, strict=True) for _ in range(count)]
        want = figures(again)
        for name, values in got.items():
            assert values[number] == pytest.approx(np.nan if want[name] is None else want[name], nan_ok=True), name


def test_pairs_are_surer_than_two_intervals() -> None:
    """Of two methods, one right wherever the other is and on two photos more."""
    base = [outcome([("cat", LEFT, 1)], Found(LEFT if k % 2 else RIGHT, 0.5, 1)) for k in range(100)]
    better = [replace(one, found=(Found(LEFT, 0.5, 1),)) if k < 16 else one for k, one in enumerate(base)]
    tables = [columns(better), columns(base)]
    (ours, other), (mine, theirs) = [table.figures() for table in tables], [draws(table) for table in tables]
    got = compared(ours, other, mine, theirs)
    gain = got["ours_minus"]["corloc"]
    assert gain["value"] == pytest.approx(0.08)
    assert 0 < gain["interval"][0] < 0.08 < gain["interval"][1]
    assert intervals(mine)["corloc"][0] < intervals(theirs)["corloc"][1]  # apart, they say nothing
    assert got["f1_ratio"]["value"] == pytest.approx(0.58 / 0.5)
    assert 1 < got["f1_ratio"]["interval"][0] < 1.16 < got["f1_ratio"]["interval"][1]


def test_classes() -> None:
    [row] = per_class([outcome([("cat", LEFT, 1)], Found(LEFT)), outcome([("cat", LEFT, 1)], Found(RIGHT))])
    assert (row.name, row.photos, row.objects, row.corloc, row.mean_iou) == ("cat", 2, 2, 0.5, 0.5)
    assert row.f1_labelled is None


def test_classes_are_those_of_all_objects() -> None:
    truths = [("cat", LEFT, None), ("dog", RIGHT, None), ("dog", (0.6, 0.0, 0.8, 0.3), None)]
    one = outcome(truths, Found(RIGHT, 0.9, 1, "dog"), Found(LEFT, 0.5, 1, "dog"))
    dog, cat = sorted(per_class([one], lambda found, label: found.label == label), key=lambda row: row.name)[::-1]
    assert (cat.corloc, cat.recall_agnostic, cat.f1_labelled) == (0, 1, 0)
    assert (dog.objects, dog.corloc, dog.recall_agnostic) == (2, 1, 0.5)
    assert (dog.precision_labelled, dog.recall_labelled, dog.f1_labelled) == (0.5, 0.5, 0.5)


def test_strata() -> None:
    truths = [("cat", (0.1, 0.1, 0.3, 0.3), None), ("dog", LEFT, None)]
    rows = {row.name.split(" ")[0]: row for row in strata([outcome(truths, Found(LEFT, 0.9, 1))])}
    assert {name: row.objects for name, row in rows.items()} == {"small": 1, "large": 1, "touches": 1, "clear": 1}
    assert (rows["small"].corloc, rows["large"].corloc, rows["touches"].recall_agnostic) == (0, 1, 1)
