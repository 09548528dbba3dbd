"""`boxlift evaluate` as a user calls it, on the photos that ship with the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

from backend.cli import evaluate
from tests.conftest import ROOT
from worker.evaluation.datasets import Object, Sample, read_dataset
from worker.evaluation.methods import Centred
from worker.evaluation.names import NOTES, OTHERS
from worker.evaluation.run import DEFAULT_LIMITS
from worker.localizer import Localizer
from worker.networks import load_network

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
    assert list(got["compare"]) == list(OTHERS)
    assert got["left_out"] == []
    centred = got["compare"]["centred 80%"]
    assert centred["mean_iou"] == pytest.approx(0.64)
    assert centred["score_auroc"] is centred["top1_loc"] is centred["threshold"] is None
    for name, other in got["compare"].items():
        gain = other["ours_minus"]["mean_iou"]
        assert gain["value"] == pytest.approx(got["mean_iou"] - other["mean_iou"])
        assert gain["interval"][0] <= gain["value"] + 1e-9
        assert other["intervals"]["mean_iou"]
        assert other["note"] == NOTES[name]
        assert other["gt_known_loc"] is not None
    assert {row["objects_that"] for row in got["strata"]} == {"large (≥ 40 %)", "touches the border"}
    page = (dataset / "report" / "index.html").read_text()
    for name in ("corloc", "iou.svg", "curves.svg", "reliability.svg", "best-0.png", "bison", "DAM heuristic"):
        assert name in page
    for file in ("iou.svg", "curves.svg", "reliability.svg", "best-0.png", "worst-0.png", "paper-figure.png"):
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


def test_a_method_that_fails_on_the_way_costs_only_itself(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_method: Centred, _photos: object, _classes: object) -> None:
        if _method.side == 0.8:
            raise RuntimeError("out of memory")
        return kept(_method, _photos, _classes)  # type: ignore[arg-type, return-value]

    kept = Centred.__call__
    monkeypatch.setattr(Centred, "__call__", fail)
    left_out: dict[str, str] = {}
    without = [name for name in OTHERS if not name.startswith("centred")]
    network = load_network("efficientnet_lite0")
    runs = evaluate._compare(network, read_dataset(dataset), DEFAULT_LIMITS, without, None, left_out)
    assert [one.method for one in runs] == ["centred 70%", "centred 100%"]
    assert left_out == {"centred 80%": "RuntimeError: out of memory"}
    assert "centred 80% is left out: RuntimeError: out of memory" in capsys.readouterr().err


def test_a_network_with_classes_of_its_own(dataset: Path) -> None:
    """Class indices of ImageNet mean nothing to it; a class that is called as the objects are is theirs."""
    network = load_network("efficientnet_lite0")
    state = {name: tensor.contiguous() for name, tensor in network.module.state_dict().items()}
    for name in [name for name, tensor in state.items() if tensor.ndim and len(tensor) == 1000]:
        state[name] = state[name][[347, 1, 2]].clone()
    save_file(state, dataset / "mine.safetensors")
    (dataset / "mine.txt").write_text("Bison\ncup\nplate\n")
    words = [
        str(dataset),
        "--network",
        "efficientnet_lite0",
        "--weights",
        str(dataset / "mine.safetensors"),
        "--json",
    ]
    done = CliRunner().invoke(evaluate.command, [*words, "--classes", str(dataset / "mine.txt")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["top1"] is not None
    (dataset / "mine.txt").write_text("fork\ncup\nplate\n")
    done = CliRunner(
        env={"BOXLIFT_CLASSES": str(dataset / "mine.txt"), "BOXLIFT_NETWORK": "efficientnet_lite0"}
    ).invoke(evaluate.command, words)
    assert done.exit_code == 0, done.output
    assert "2 objects have a class_index that says nothing about this network" in done.stderr
    assert "bison" in done.stderr
    assert json.loads(done.stdout)["top1"] is None


def test_how_many_boxes_where_nobody_says(dataset: Path) -> None:
    """Several where a photo has several objects, whatever their labels; one where a photo stands for a class."""
    name = str(sorted(PHOTOS.glob("*.jpg"))[0])
    boxes = [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]
    asked: list[int] = []

    def remember(
        localizer: Localizer, images: Sequence[object], *, max_boxes: int = 1, **_more: object
    ) -> list[object]:
        asked.append(max_boxes)
        return [[] for _ in images]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Localizer, "localize", remember)
        for line, words, want in (
            ({"boxes": boxes, "class_name": "owl"}, [], 1),
            ({"objects": [{"label": "owl", "box": box} for box in boxes]}, [], evaluate.SEVERAL),
            ({"objects": [{"label": "owl", "box": box} for box in boxes]}, ["--max-boxes", "3"], 3),
        ):
            (dataset / "boxes.jsonl").write_text(json.dumps({"file": name, **line}))
            arguments = [str(dataset), "--network", "efficientnet_lite0", "--json", *words]
            done = CliRunner().invoke(evaluate.command, arguments)
            assert done.exit_code == 0, done.output
            assert asked.pop() == want
            asked.clear()


def test_bad_usage(tmp_path: Path) -> None:
    assert boxlift("missing", cwd=tmp_path).returncode == 2
    done = boxlift(str(tmp_path), "--network", "efficientnet_lite0", cwd=tmp_path)
    assert done.returncode == 1
    assert "no boxes.jsonl" in done.stderr


@pytest.mark.parametrize("words", [["--compare"], []])
def test_a_method_that_there_is_not(dataset: Path, words: list[str]) -> None:
    """Told before anything is read, with or without --compare."""
    done = CliRunner().invoke(evaluate.command, [str(dataset), "--without", "tarot", *words])
    assert done.exit_code == 2
    assert "no method tarot: there are centred 70%" in " ".join(done.stderr.split())


def test_a_sample_is_the_same_every_time() -> None:
    samples = [Sample(Path(f"{k}.jpg"), (Object("cat", (0, 0, 1, 1)),)) for k in range(30)]
    first = evaluate._pick(samples, None, 7)
    assert first == evaluate._pick(samples, None, 7)
    assert len(first) == 7
    assert first != samples[:7]
    assert [int(one.path.stem) for one in first] == sorted(int(one.path.stem) for one in first)
    assert evaluate._pick(samples, 3, 7) == samples[:3]
