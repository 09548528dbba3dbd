"""The commands on files with a real network: every input and output form tells of the same boxes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.bulk.workforce import Hire, workforce
from backend.demo.photos import FOLDER
from backend.settings import Settings
from worker.contract import Box

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NETWORK = "efficientnet_lite0"
PHOTOS = 4
CONFIG = (
    '<View><Image name="image" value="$photo"/><RectangleLabels name="label" toName="image">'
    '<Label value="Thing" model_unmatched="true"/></RectangleLabels></View>'
)


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return sorted(file for file in FOLDER.iterdir() if file.suffix == ".jpg")[:PHOTOS]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis, and a worker that may read the photos."""
    with workforce(Settings(), Hire(network=NETWORK), roots=[FOLDER], environ={}) as force:
        yield force.settings.redis_url


@pytest.fixture(scope="module")
def table(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV beside a labelling config, with a column that nobody asks for."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "config.xml").write_text(CONFIG)
    with (folder / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["photo", "taken"])
        rows.writerows([f"file://{path}", "in spring, at noon"] for path in files)
    return folder / "photos.csv"


def predict(redis_url: str, table: Path, form: str, out: Path) -> dict[str, Any]:
    """`boxlift preannotate` of the table; its summary."""
    arguments = ["preannotate", str(table), "--config", str(table.with_name("config.xml")), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", *arguments, "--format", form, "--json"],
        env=os.environ | {"REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = dict(json.loads(done.stdout))
    assert (summary["total"], summary["done"]) == (PHOTOS, PHOTOS)
    return summary


def test_a_table_as_tasks_as_coco_and_as_yolo(
    redis_url: str, table: Path, files: list[Path], tmp_path: Path
) -> None:
    summary = predict(redis_url, table, "label-studio", tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"] for task in tasks] == [
        {"photo": f"file://{path}", "taken": "in spring, at noon"} for path in files
    ]
    boxes: list[Box] = []
    sizes = []
    for task in tasks:
        [prediction] = task["predictions"]
        [item] = prediction["result"]
        x, y, width, height = (item["value"][side] / 100 for side in ("x", "y", "width", "height"))
        boxes.append((x, y, width, height))
        sizes.append((item["original_width"], item["original_height"]))
    assert summary["labels"] == {"Thing": PHOTOS}

    predict(redis_url, table, "coco", tmp_path / "coco.json")
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert [(image["width"], image["height"]) for image in coco["images"]] == sizes
    assert [category["name"] for category in coco["categories"]] == ["Thing"]
    for one, image, (x, y, width, height) in zip(coco["annotations"], coco["images"], boxes, strict=True):
        across, down = image["width"], image["height"]
        assert one["image_id"] == image["id"]
        assert one["bbox"] == pytest.approx([x * across, y * down, width * across, height * down], abs=0.1)

    predict(redis_url, table, "yolo", tmp_path / "yolo")
    assert (tmp_path / "yolo" / "classes.txt").read_text() == "Thing\n"
    labels = {file.stem: file.read_text().split() for file in (tmp_path / "yolo" / "labels").rglob("*.txt")}
    assert labels.keys() == {file.stem for file in files}
    for file, (x, y, width, height) in zip(files, boxes, strict=True):
        kind, *sides = labels[file.stem]
        assert kind == "0"
        assert list(map(float, sides)) == pytest.approx([x + width / 2, y + height / 2, width, height], abs=1e-3)


def test_bench_measures_the_same_photos_with_and_without_a_queue(files: list[Path], tmp_path: Path) -> None:
    for file in files:
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", "bench", "preannotate", str(tmp_path), "--batch", "2", "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["photos"], found["failed"], found["network"]) == (PHOTOS, 0, NETWORK)
    assert found["rate_vs_engine"] == pytest.approx(found["preannotate_per_s"] / found["engine_per_s"], rel=0.01)
