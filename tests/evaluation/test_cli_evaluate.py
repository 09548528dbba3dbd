"""`boxlift evaluate` as a user calls it, on the photos that ship with the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from worker.evaluation.methods import OTHERS

PHOTOS = ROOT / "backend" / "demo" / "photos"


def boxlift(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", "evaluate", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=850,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "160", "HOME": str(cwd)},
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two photos with the whole image as their true box: sure to overlap."""
    names = sorted(PHOTOS.glob("*.jpg"))[:2]
    lines = [
        {"file": str(name), "class_index": 347, "class_name": "bison", "boxes": [[0, 0, 1, 1]]} for name in names
    ]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_json_and_report(dataset: Path) -> None:
    done = boxlift(
        str(dataset), "--network", "efficientnet_lite0", "--json", "--report", "report", "--compare", cwd=dataset
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["photos"] == 2
    assert got["center_hit"] == 1
    assert 0 < got["mean_iou"] <= 1
    assert got["gt_known_loc"] is not None
    assert got["intervals"]["mean_iou"][0] <= got["mean_iou"] <= got["intervals"]["mean_iou"][1]
    others = " ".join(got["compare"])
    assert [name for name in OTHERS if name not in others] == []
    assert got["compare"]["centred 80%"]["mean_iou"] == pytest.approx(0.64)
    page = (dataset / "report" / "index.html").read_text()
    for name in ("corloc", "iou.svg", "curves.svg", "reliability.svg", "best-0.png", "bison"):
        assert name in page
    for file in ("iou.svg", "curves.svg", "reliability.svg", "best-0.png", "worst-0.png"):
        assert (dataset / "report" / file).stat().st_size > 1000


def test_photos_that_cannot_be_read_are_told_and_counted_out(dataset: Path) -> None:
    with (dataset / "boxes.jsonl").open("a") as file:
        file.write('\n{"file": "gone.jpg", "class_index": 1, "class_name": "x", "boxes": [[0, 0, 1, 1]]}')
    done = boxlift(str(dataset), "--network", "efficientnet_lite0", "--json", cwd=dataset)
    assert done.returncode == 1
    got = json.loads(done.stdout)
    assert got["photos"] == 2
    assert [item["image"] for item in got["failed"]] == ["gone.jpg"]


def test_methods_that_nobody_wants_are_left_out(dataset: Path) -> None:
    left_out = [word for name in OTHERS[1:] for word in ("--without", name)]
    done = boxlift(str(dataset), "--network", "efficientnet_lite0", "--json", "--compare", *left_out, cwd=dataset)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["compare"]) == [OTHERS[0]]


def test_bad_usage(tmp_path: Path) -> None:
    assert boxlift("missing", cwd=tmp_path).returncode == 2
    done = boxlift(str(tmp_path), "--network", "efficientnet_lite0", cwd=tmp_path)
    assert done.returncode == 1
    assert "no boxes.jsonl" in done.stderr
    done = boxlift(str(PHOTOS), "--compare", "--without", "tarot", cwd=tmp_path)
    assert done.returncode != 0
