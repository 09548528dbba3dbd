"""What `boxlift tune` tells of its findings: also the figure that decides, and what becomes of old predictions."""

from __future__ import annotations

from typing import Any

import pytest

from backend.cli.tune import _show, summary
from backend.tuning.run import Outcome

FIGURES = {"corloc": 0.6, "mean_iou": 0.55, "center_hit": 0.9, "score_auroc": None, "calibration_error": 0.1}
GAIN = {"mean": 0.03, "low": 0.001, "high": 0.06}
FIT = {
    "before": FIGURES,
    "after": FIGURES | {"mean_iou": 0.58},
    "gains": {"corloc": GAIN, "mean_iou": GAIN, "value": {"mean": 0.04, "low": 0.012, "high": 0.07}},
    "better": False,
    "trial": "learned anew",
    "sure": 0.98,
}


def outcome(**given: Any) -> Outcome:
    told: dict[str, Any] = {"was": "boxlift-stub-0", "version": "boxlift-stub-0", "photos": 40, "fit": FIT} | given
    return Outcome(7, "boxlift-stub-0", **told)


def test_the_figure_that_decides_and_its_level_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _show(outcome(), dry_run=False, repredict=False)
    shown = capsys.readouterr().out
    assert "+0.040 (+0.012 to +0.070)" in shown
    assert "98% of the draws" in shown
    assert "in use" not in shown


@pytest.mark.parametrize(("repredict", "told"), [(False, True), (True, False)])
def test_without_predicting_again_it_says_what_that_means(
    repredict: bool, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = outcome(version="boxlift-stub-1", published=True)
    _show(changed, dry_run=False, repredict=repredict)
    shown = capsys.readouterr().out
    assert "in use: boxlift-stub-1" in shown
    assert ("boxlift preannotate --project 7 --unannotated" in shown) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"version": "boxlift-stub-1", "published": True}, "in use"),
        ({"was": "boxlift-stub-1", "withdrawn": True}, "back to the defaults"),
        ({"was": "boxlift-stub-1", "version": "boxlift-stub-1"}, "what is in use stays"),
        ({}, "no certain gain, nothing changed"),
        ({"fit": {}, "notes": ["annotate some tasks first"]}, "annotate some tasks first"),
        ({"fit": FIT | {"better": True}, "version": "boxlift-stub-1"}, "better, but nothing was changed"),
    ],
)
def test_one_line_for_the_status(given: dict[str, Any], told: str) -> None:
    assert summary(outcome(**given)).endswith(told)
