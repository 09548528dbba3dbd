"""The report: which photos it shows, and that it shows the boxes that were counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from worker.evaluation import plots, report
from worker.evaluation.datasets import Object, Sample
from worker.evaluation.metrics import Found, Outcome
from worker.evaluation.run import Run
from worker.localizer import Localizer
from worker.networks import load_network

PHOTO = sorted((ROOT / "backend" / "demo" / "photos").glob("*.jpg"))[0]


def photos(count: int) -> list[Outcome]:
    return [
        Outcome(
            Sample(Path(f"{k}.jpg"), (Object("cat", (0, 0, 1, 1)),)), (Found((0, 0, 1, (k + 1) / count), 0.5, 1),)
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 17, 18, 40])
def test_no_photo_is_shown_twice(count: int) -> None:
    shown = report.choose([*photos(count), Outcome(Sample(Path("empty.jpg"), ()))])
    names = [one.sample.path.name for chosen in shown.values() for one in chosen]
    assert len(names) == len(set(names)) <= 3 * report.GALLERY
    assert "empty.jpg" not in names
    assert names[0] == f"{count - 1}.jpg"
    if count > 1:
        assert names[-1] == "0.jpg"
    if count > 2:
        assert shown["Middle"]
    fits = [[one.best_iou for one in chosen] for chosen in shown.values()]
    assert [fit for part in fits for fit in part] == sorted((fit for part in fits for fit in part), reverse=True)


def test_the_gallery_draws_the_boxes_that_were_counted(tmp_path: Path) -> None:
    """Two boxes, neither of which the network would draw itself."""
    localizer = Localizer(load_network("efficientnet_lite0"))
    sample = Sample(PHOTO, (Object("cat", (0.1, 0.1, 0.5, 0.5)),))
    boxes = (Found((0.1, 0.1, 0.5, 0.5), 0.9, 1, "cat"), Found((0.6, 0.6, 0.9, 0.9), 0.4, 2, "dog"))
    said = [report._show(tmp_path, f"{len(found)}.png", Outcome(sample, found), localizer)["caption"]
            for found in ((), boxes[:1], boxes)]  # fmt: skip
    assert said[0].endswith("no box")
    assert said[1].endswith("IoU 1.00")
    assert said[2].endswith("2 boxes, 1 on an object")
    pixels = [np.asarray(Image.open(tmp_path / f"{count}.png"), dtype=int) for count in range(3)]
    red = [int((np.abs(one - (255, 64, 32)).sum(2) < 6).sum()) for one in pixels]
    assert red[0] < red[1] < red[2]


def test_every_curve_looks_different(tmp_path: Path) -> None:
    runs = [Run(f"method {k}", tuple(photos(5)), 1.0) for k in range(15)]
    [axes] = plots._curves(runs).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 15


def test_reliability_of_all_boxes_too() -> None:
    sample = Sample(Path("a.jpg"), (Object("cat", (0, 0, 0.4, 1)), Object("dog", (0.6, 0, 1, 1))))
    one = Outcome(
        sample, (Found((0, 0, 0.4, 1), 0.9, 1), Found((0.6, 0, 1, 1), 0.5, 2), Found((0, 0, 1, 1), 0.1, 2))
    )
    [axes] = plots._reliability([one] * 4).axes
    drawn = {line.get_label(): line for line in axes.lines}
    assert set(np.asarray(drawn["first box of each photo"].get_ydata())) == {1.0}
    [low, *_, high] = np.asarray(drawn["all boxes"].get_ydata())
    assert (low, high) == (0, 1)
