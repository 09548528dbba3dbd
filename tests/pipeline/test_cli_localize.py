"""`boxlift localize` as a user calls it: a process of its own, a real network, real files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from backend.cli.chosen_network import ChosenNetwork
from backend.settings import Settings
from tests.conftest import ROOT
from worker.networks import NETWORKS

PHOTOS = ROOT / "backend" / "demo" / "photos"
BASE = ["localize", "--network", "efficientnet_lite0"]


def boxlift(*words: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "160", "HOME": str(cwd), **settings},
    )


@pytest.fixture(scope="module")
def photo() -> Path:
    return min(PHOTOS.glob("*.jpg"))


def test_lines_of_json(tmp_path: Path, photo: Path) -> None:
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photo) as image:
        width, height = image.size
        image.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photo.read_bytes()[:2000])
    names = [str(photo), str(broken), "gone.png", str(tmp_path), str(turned)]
    done = boxlift(*BASE, "--json", *names, cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == names
    assert done.returncode == 1
    upright, *failed, twin = lines
    for line in failed:
        assert set(line) == {"image", "error"}
        assert line["image"] in line["error"]
    for line in (upright, twin):
        assert list(line) == ["image", "width", "height", "model_version", "convergence_delta", "detections"]
        assert 0 < abs(line["convergence_delta"]) < 0.5
        assert (line["width"], line["height"]) == (width, height)
        assert re.fullmatch(r"boxlift-efficientnet_lite0-[0-9a-f]{12}", line["model_version"])
        [found] = line["detections"]
        assert list(found) == ["label", "class_index", "score", "box"]
        assert 0 <= found["score"] <= 1
        x0, y0, x1, y1 = found["box"]
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
    assert twin["detections"][0]["label"] == upright["detections"][0]["label"]
    assert twin["detections"][0]["box"] == pytest.approx(
        upright["detections"][0]["box"], abs=max(width, height) / 50
    )


def test_captum_gives_the_same_boxes(tmp_path: Path, photo: Path) -> None:
    ours, captums = (
        boxlift(*BASE, "--precision", "float32", "--engine", engine, "--json", str(photo), cwd=tmp_path)
        for engine in ("boxlift", "captum")
    )
    assert ours.returncode == captums.returncode == 0, captums.stderr
    [right], [found] = (json.loads(done.stdout)["detections"] for done in (ours, captums))
    assert found["label"] == right["label"]
    assert found["score"] == pytest.approx(right["score"], abs=0.01)
    assert found["box"] == pytest.approx(right["box"], abs=3)


def test_table_and_panels(tmp_path: Path, photo: Path) -> None:
    done = boxlift(*BASE, "--panels", "maps", str(photo), str(photo), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "boxlift-efficientnet_lite0-" in done.stdout
    for heading in ("image", "size", "label", "score", "box"):
        assert heading in done.stdout
    sheets = sorted((tmp_path / "maps").iterdir())
    assert [sheet.name for sheet in sheets] == [f"{photo.stem}-2.png", f"{photo.stem}.png"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > 4 * 120
        colours = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
        assert colours is not None
        assert (255, 64, 32) in {colour for _, colour in colours}  # a box was drawn


OWN = ("left-handed widget", "right-handed widget", "screw")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mine.pth, a ResNet-18 of three classes, and mine.txt, their names."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    torch.save(NETWORKS["resnet18"].build(len(OWN)).state_dict(), folder / "mine.pth")
    (folder / "mine.txt").write_text("\n".join(OWN) + "\n")
    return folder


def _label(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["model_version"].startswith("boxlift-resnet18-")
    [found] = line["detections"]
    return str(found["label"])


def test_a_checkpoint_with_classes_of_its_own_by_options(tmp_path: Path, photo: Path, checkpoint: Path) -> None:
    files = ["--weights", str(checkpoint / "mine.pth"), "--classes", str(checkpoint / "mine.txt")]
    assert _label(boxlift("localize", "--network", "resnet18", *files, "--json", str(photo), cwd=tmp_path)) in OWN


def test_a_checkpoint_with_classes_of_its_own_by_settings(tmp_path: Path, photo: Path, checkpoint: Path) -> None:
    """Those of README's recipe for a worker; ~ is the home folder."""
    (tmp_path / "mine.pth").symlink_to(checkpoint / "mine.pth")
    settings = {
        "BOXLIFT_NETWORK": "resnet18",
        "BOXLIFT_WEIGHTS": "~/mine.pth",
        "BOXLIFT_CLASSES": str(checkpoint / "mine.txt"),
    }
    assert _label(boxlift("localize", "--json", str(photo), cwd=tmp_path, **settings)) in OWN


def test_files_of_one_network_are_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = Settings(network="resnet18", weights="~/mine.pth", classes="mine.txt")
    home = Path("/home/somebody")
    for same in (None, "resnet18"):
        mine = ChosenNetwork("resnet18", home / "mine.pth", Path("mine.txt"))
        assert ChosenNetwork.of(settings, same) == mine
    assert ChosenNetwork.of(settings, "vgg16") == ChosenNetwork("vgg16")
    given = ChosenNetwork.of(settings, None, Path("~/other.pth"), "other.txt")
    assert given == ChosenNetwork("resnet18", home / "other.pth", Path("other.txt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["localize"], "IMAGE"),
        (["localize", "--network", "vgg17", "a.jpg"], "vgg16"),
        (["localize", "--max-boxes", "0", "a.jpg"], "max-boxes"),
        (["localize", "--odd", "a.jpg"], "odd"),
    ],
)
def test_bad_usage(tmp_path: Path, words: list[str], message: str) -> None:
    done = boxlift(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
