"""Files that others read: checked by Label Studio's own validation, and box by box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.bulk.formats import WRITERS, Predicted
from backend.bulk.journal import Journal
from backend.bulk.sources import Item
from backend.bulk.summary import Summary
from backend.plans import read_config
from worker.contract import Detection, ImageRef, ImageResult, Model, Result

MODEL = Model("boxlift-stub-1", "stub", ("cat", "dog"))
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" model_max_boxes="3">'
    '<Label value="Dog" predicted_values="dog"/><Label value="Cat" predicted_values="cat"/>'
    "</RectangleLabels></View>"
)
READING = read_config(CONFIG, MODEL, "skip")
LABELS = ("Dog", "Cat")


def predicted(name: str, *boxes: tuple[str, float, tuple[float, ...]], error: str | None = None) -> Predicted:
    """A task with one photo of 200 × 100 pixels."""
    ref = ImageRef(f"file:///p/{name}", "image")
    found = tuple(
        Detection(label, MODEL.classes.index(label), score, (box[0], box[1], box[2], box[3]))
        for label, score, box in boxes
    )
    image = ImageResult(ref, error=error) if error else ImageResult(ref, 200, 100, found)
    item = Item({"data": {"image": f"/data/local-files/?d={name}"}}, (ref,), (name,))
    return Predicted(item, Result(0, 1, MODEL.version, "p", (image,)))


TASKS = (
    predicted("a.jpg", ("cat", 0.9, (20, 10, 120, 60)), ("dog", 0.4, (-5, 90, 40, 130))),
    predicted("deep/b.png"),
    predicted("c.jpg", error="broken"),
    Predicted(Item({"data": {}}, (), ()), None),
    predicted("a.png", ("dog", 0.5, (0, 0, 200, 100))),
)


def write(form: str, out: Path) -> Path:
    WRITERS[form](out, TASKS, READING.mapping, LABELS)
    return out


def test_label_studio_validates_every_task(tmp_path: Path) -> None:
    found = json.loads(write("label-studio", tmp_path / "out" / "p.json").read_text())
    assert len(found) == len(TASKS)
    assert [len(task["predictions"]) for task in found] == [1, 1, 0, 0, 1]
    interface: Any = LabelInterface(CONFIG)
    for task in found:
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []
    [prediction] = found[0]["predictions"]
    assert prediction["model_version"] == MODEL.version
    assert prediction["score"] == 0.4
    assert [item["value"]["rectanglelabels"] for item in prediction["result"]] == [["Cat"], ["Dog"]]
    assert found[1]["predictions"][0]["result"] == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p.json"], "something was left beside it"


def test_predictions_of_others_stay_and_ours_is_there_once(tmp_path: Path) -> None:
    theirs: dict[str, Any] = {"model_version": "theirs", "result": []}
    stale = {"model_version": MODEL.version, "result": [], "score": 0.0}
    task = predicted("a.jpg", ("cat", 0.9, (20, 10, 120, 60)))
    item = Item(task.item.task | {"predictions": [theirs, stale], "meta": {"x": 1}}, task.item.images, ("a.jpg",))
    WRITERS["label-studio"](tmp_path / "p.json", [Predicted(item, task.result)], READING.mapping, LABELS)
    [found] = json.loads((tmp_path / "p.json").read_text())
    assert [old["model_version"] for old in found["predictions"]] == ["theirs", MODEL.version]
    assert found["predictions"][1]["result"]
    assert found["meta"] == {"x": 1}


def test_coco(tmp_path: Path) -> None:
    found = json.loads(write("coco", tmp_path / "coco.json").read_text())
    assert found["categories"] == [{"id": 1, "name": "Dog"}, {"id": 2, "name": "Cat"}]
    assert [image["file_name"] for image in found["images"]] == ["a.jpg", "deep/b.png", "a.png"]
    assert {(image["width"], image["height"]) for image in found["images"]} == {(200, 100)}
    boxes = [(box["image_id"], box["category_id"], box["bbox"], box["area"]) for box in found["annotations"]]
    assert boxes == [
        (1, 2, [20, 10, 100, 50], 5000),
        (1, 1, [0, 90, 40, 10], 400),
        (3, 1, [0, 0, 200, 100], 20000),
    ]
    assert [box["id"] for box in found["annotations"]] == [1, 2, 3]
    assert [box["score"] for box in found["annotations"]] == [0.9, 0.4, 0.5]


def test_yolo(tmp_path: Path) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "old.txt").write_text("of an earlier run")
    out = write("yolo", tmp_path / "yolo")
    files = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.txt")}
    assert files == {
        "classes.txt": "Dog\nCat\n",
        "labels/a.txt": "1 0.350000 0.350000 0.500000 0.500000\n0 0.100000 0.950000 0.200000 0.100000\n",
        "labels/deep/b.txt": "",
        "labels/a.png.txt": "0 0.500000 0.500000 1.000000 1.000000\n",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["yolo"]


def test_names_from_elsewhere_stay_inside(tmp_path: Path) -> None:
    tasks = [predicted("../../escape.jpg"), predicted("https://h/p/q.jpg?sig=1")]
    WRITERS["yolo"](tmp_path / "y", tasks, READING.mapping, LABELS)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")}
    assert found == {"y/classes.txt", "y/labels/escape.txt", "y/labels/h/p/q.txt"}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    for form, out in (("label-studio", tmp_path / "p.json"), ("yolo", tmp_path / "y")):
        write(form, out)
        before = sorted(tmp_path.rglob("*"))
        broken = Predicted(Item({"data": {"image": object()}}, (), ()), TASKS[0].result)
        with pytest.raises((TypeError, KeyError)):
            WRITERS[form](out, [broken], READING.mapping, LABELS)
        assert sorted(tmp_path.rglob("*")) == before


def test_the_journal_survives_a_cut(tmp_path: Path) -> None:
    result = TASKS[0].result
    assert result is not None
    with Journal(tmp_path / "j") as journal:
        assert journal.read() == {}
        journal.add("one", result)
        journal.add("two", result)
    whole = (tmp_path / "j").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "j").write_bytes(whole[:cut])
        with Journal(tmp_path / "j") as journal:
            before = journal.read()
            journal.add("three", result)
        assert set(Journal(tmp_path / "j").read()) == {*before, "three"}
        assert all(found == result for found in before.values())
    journal.remove()
    assert not (tmp_path / "j").exists()


def test_the_summary_counts(tmp_path: Path) -> None:
    summary = Summary("v", 3)
    for task in TASKS:
        prediction = task.prediction(READING.mapping)
        if prediction is not None:
            summary.add(prediction["result"])
    summary.fail("c.jpg", "broken")
    assert (summary.done, summary.empty, summary.failed) == (3, 1, 1)
    assert summary.labels == {"Dog": 2, "Cat": 1}
    assert summary.scores == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert json.loads(json.dumps(summary.to_dict()))["failures"] == {"c.jpg": "broken"}
