"""The stored parameters against the paper's pipeline, on the same photos in one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from worker.evaluation.datasets import read_dataset
from worker.evaluation.methods import others
from worker.evaluation.metrics import figures
from worker.evaluation.names import OTHERS
from worker.evaluation.run import Ours, Run, run
from worker.localizer import Localizer
from worker.networks import load_network

DATA = ROOT.parent / "shared" / "data"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def measured(folder: Path, every: int, max_boxes: int) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Figures of ours and of the paper's pipeline on every `every`-th photo."""
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not beside the checkout, in shared/data")
    samples = read_dataset(folder)[::every]
    network = load_network("efficientnet_lite0")
    [method] = others(network, [name for name in OTHERS if name != "paper"])
    [paper] = method.runs(run(method, samples))
    ours: Run = run(Ours(Localizer(network), max_boxes=max_boxes), samples)
    return figures(ours.outcomes), figures(paper.outcomes)


def test_single_boxes_are_better_than_the_papers() -> None:
    ours, paper = measured(DATA / "ilsvrc", 13, 1)
    for name in ("corloc", "mean_iou"):
        assert ours[name] > paper[name], (name, ours[name], paper[name])  # type: ignore[operator]


def test_several_boxes_are_better_than_the_papers_one() -> None:
    ours, paper = measured(DATA / "coco", 9, 10)
    assert ours["f1_agnostic"] > paper["f1_agnostic"], (ours, paper)  # type: ignore[operator]
