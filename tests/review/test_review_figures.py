"""What people did to boxes, counted by hand and by the review."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.corrections import Correction, LabelledBox, SeenPrediction
from backend.review.figures import calibration, review, wilson
from backend.review.matching import handled, iou
from backend.review.page import Shown, render, span
from backend.review.savings import Costs, savings
from backend.review.worst import worst
from worker.contract import Box

START = datetime(2026, 11, 24, tzinfo=UTC)
LEFT: Box = (0.1, 0.1, 0.4, 0.5)
RIGHT: Box = (0.6, 0.5, 0.9, 0.9)


def box(where: Box = LEFT, label: str = "Dog", score: float | None = None, **more: Any) -> LabelledBox:
    return LabelledBox(
        to_name="image", item_index=more.pop("page", None), label=label, box=where, score=score, **more
    )


def correction(
    task: int,
    ours: list[LabelledBox] | None,
    theirs: list[LabelledBox],
    *,
    skipped: bool = False,
    version: str = "v1",
) -> Correction:
    prediction = None if ours is None else SeenPrediction(version, 0.5, tuple(ours))
    at = START + timedelta(minutes=task)
    return Correction(task, {"image": "a.jpg"}, task, skipped, tuple(theirs), at, 6.0 + task, prediction)


def fates(ours: list[LabelledBox], theirs: list[LabelledBox], **more: Any) -> list[tuple[str, str]]:
    return [(item.label, item.fate) for item in handled(correction(1, ours, theirs, **more))]


def shifted(by: float, where: Box = LEFT) -> Box:
    return where[0] + by, where[1], where[2] + by, where[3]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([box()], [box()], [("Dog", "accepted")]),
        ([box()], [box(shifted(1e-5))], [("Dog", "accepted")]),
        ([box()], [box(shifted(0.05))], [("Dog", "moved")]),
        ([box()], [box(label="Cat")], [("Dog", "relabelled")]),
        ([box()], [box(shifted(0.05), "Cat")], [("Dog", "relabelled")]),
        ([box()], [], [("Dog", "deleted")]),
        ([], [box()], [("Dog", "added")]),
        ([box()], [box(RIGHT)], [("Dog", "deleted"), ("Dog", "added")]),
        ([box(id="r")], [box(RIGHT, id="r")], [("Dog", "moved")]),  # far, but the same region
        ([box(page=0)], [box(page=1)], [("Dog", "deleted"), ("Dog", "added")]),
        # Two of ours on one of theirs: the better one is it.
        ([box(shifted(0.1)), box()], [box()], [("Dog", "accepted"), ("Dog", "deleted")]),
        # Alike in place, the label decides which is which.
        ([box(label="Cat"), box()], [box(), box(label="Cat")], [("Cat", "accepted"), ("Dog", "accepted")]),
    ],
)
def test_what_became_of_each_box(
    ours: list[LabelledBox], theirs: list[LabelledBox], expected: list[tuple[str, str]]
) -> None:
    assert sorted(fates(ours, theirs)) == sorted(expected)


def test_skipped_tasks_and_tasks_without_our_prediction_say_nothing_about_boxes() -> None:
    assert fates([box(), box(RIGHT, "Cat")], [], skipped=True) == [("Dog", "skipped"), ("Cat", "skipped")]
    assert handled(correction(1, None, [box()])) == []


def test_iou_by_hand() -> None:
    assert iou((0, 0, 2, 1), (1, 0, 3, 1)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0


def test_right_is_label_and_half_an_iou() -> None:
    near, far = (
        handled(correction(1, [box()], [box(shifted(0.05))])),
        handled(correction(2, [box(id="r")], [box(shifted(0.2), id="r")])),
    )
    assert (near[0].right, far[0].right) == (True, False)
    assert handled(correction(3, [box()], [box(label="Cat")]))[0].right is False


def project() -> list[Correction]:
    """Thirty tasks: ten accepted, five moved, five relabelled, four deleted, three skipped, three without ours."""
    found = [correction(n, [box(score=0.9)], [box()]) for n in range(10)]
    found += [correction(n, [box(score=0.8)], [box(shifted(0.05))]) for n in range(10, 15)]
    found += [correction(n, [box(score=0.3)], [box(label="Cat")]) for n in range(15, 20)]
    found += [correction(n, [box(score=0.2)], [box(RIGHT)], version="v2") for n in range(20, 24)]
    found += [correction(n, [box(score=0.1)], [], skipped=True) for n in range(24, 27)]
    return found + [correction(n, None, [box()]) for n in range(27, 30)]


def test_the_figures_of_a_project() -> None:
    found = review(7, project()[::-1])  # in whatever order they come
    assert (found.tasks, found.skipped, found.without_prediction) == (30, 3, 3)
    [dog] = found.labels
    assert dog.counts == {"accepted": 10, "moved": 5, "relabelled": 5, "deleted": 4, "added": 4, "skipped": 3}
    assert (dog.ours, dog.right) == (24, 15)
    assert dog.accepted == pytest.approx(10 / 24)
    assert dog.accuracy == pytest.approx(15 / 24)
    assert dog.moved_iou == pytest.approx(0.25 / 0.35)
    assert [(tally.name, tally.ours) for tally in found.versions] == [("v1", 20), ("v2", 4)]
    assert [tally.tasks for tally in found.trend] == [13, 14]
    accuracies = [tally.accuracy for tally in found.trend]
    assert accuracies == [1.0, pytest.approx(2 / 11)]
    assert found.lead_time == pytest.approx(6.0 + 13)  # of tasks 0 to 23 and 27 to 29
    told = json.loads(json.dumps(found.to_dict()))
    assert told["total"]["counts"]["added"] == 4
    assert told["savings"]["seconds"]["draw"] == 25.5


def test_calibration_by_hand() -> None:
    found = calibration(box for one in project() for box in handled(one))
    assert found.boxes == 24
    assert [(part.boxes, part.right) for part in found.bins] == [(4, 0.0), (5, 0.0), (5, 1.0), (10, 1.0)]
    expected = (4 * 0.2 + 5 * 0.3 + 5 * 0.2 + 10 * 0.1) / 24
    assert found.error == pytest.approx(expected)
    assert found.brier == pytest.approx((4 * 0.04 + 5 * 0.09 + 5 * 0.04 + 10 * 0.01) / 24)
    assert calibration([]).error is None


def test_wilson_against_published_values() -> None:
    """Newcombe (1998), table I, method 3: 81 of 263, and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_time_saved_is_the_stated_model() -> None:
    boxes = [box for one in project() for box in handled(one)]
    costs = Costs(draw=20, check=1, move=8, relabel=3)
    found = savings(boxes, costs)
    assert found.without == 20 * (10 + 5 + 5 + 4)
    assert found.with_drafts == 10 * 1 + 5 * 8 + 5 * 3 + 4 * 1 + 4 * 20
    assert found.share == pytest.approx(1 - found.with_drafts / found.without)
    moved_too = savings(handled(correction(1, [box()], [box(shifted(0.05), "Cat")])), costs)
    assert moved_too.with_drafts == 8 + 3
    assert savings([], costs).share == 0.0


def test_the_worst_come_first_and_the_good_not_at_all() -> None:
    boxes = [box for one in project() for box in handled(one)]
    found = worst(boxes, 100)
    assert {case.correction.task for case in found} == set(range(10, 24))
    assert [case.correction.task for case in found[:5]] == list(range(15, 20))  # as wrong, and surer
    assert [case.badness for case in found] == sorted((case.badness for case in found), reverse=True)
    assert found[-1].words == "Dog moved (IoU 0.71)"
    assert len(worst(boxes, 3)) == 3


def test_the_page_needs_nothing_else_and_escapes_everything() -> None:
    evil = "<script>alert(1)</script>"
    one = correction(1, [box(label=evil, score=0.5)], [box(label="Cat")])
    found = review(1, [one])
    shown = [
        Shown(case, "data:image/jpeg;base64,AA==", 40, 30, link="http://h/projects/1/data?task=1")
        for case in worst(found.boxes, 5)
    ]
    page = render(found, shown, title=evil, notes=[evil])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    for loaded in ('src="http', "url(", "<link", "@import", 'href="http://h/other'):
        assert loaded not in page
    assert '<rect class="ours" x="4.0" y="3.0"' in page
    assert '<rect class="theirs"' in page


def test_a_page_about_nothing(tmp_path: Path) -> None:
    page = render(review(1, []), [], title="Empty")
    assert "Empty" in page


@pytest.mark.parametrize(
    ("seconds", "told"), [(None, "–"), (5, "5 s"), (-130, "−2 min"), (3600 * 3, "3.0 h"), (0, "0 s")]
)
def test_times_for_people(seconds: float | None, told: str) -> None:
    assert span(seconds) == told
