"""Corrections, out of what Label Studio recorded of people's work in its own pages."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from desk import recordings

from backend.corrections import LabelledBox, corrections, enclosing, read_boxes, read_task
from backend.labelling import parse_config

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="Dog"/>'
    '<Label value="Cat"/></RectangleLabels><PolygonLabels name="shape" toName="image"><Label value="Dog"/>'
    "</PolygonLabels></View>"
)
LABELLING = parse_config(CONFIG)
OURS = "boxlift-vgg16-0123456789ab"


def item(x: float = 10, label: str = "Dog", **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": [label]}
    return {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "id": f"r{x}",
        "value": value,
    } | more


def prediction(number: int, at: str = "2026-11-24T01:00:00Z", version: str = OURS, **more: Any) -> dict[str, Any]:
    result = [item(score=0.4), item(60, "Cat", score=0.7)]
    return {"id": number, "created_at": at, "model_version": version, "score": 0.4, "result": result} | more


def annotation(number: int = 1, at: str = "2026-11-24T02:00:00Z", **more: Any) -> dict[str, Any]:
    base = {"id": number, "created_at": at, "updated_at": at, "was_cancelled": False, "lead_time": 5.5}
    return base | {"result": [item(12, origin="prediction-changed")], "parent_prediction": None} | more


def task(annotations: list[dict[str, Any]], predictions: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": 3, "data": {"image": "/a.jpg"}, "annotations": annotations, "predictions": predictions}


def recorded(folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """The task of a recorded webhook, as the list of tasks has it, and its labelling config."""
    [(_, recording)] = [found for found in recordings(folder, name) if found[0] == name]
    body = recording["request"]["body"]
    shown = body["annotation"]["prediction"]
    listed = body["task"] | {"annotations": [body["annotation"]], "predictions": [shown] if shown else []}
    return listed, body["project"]["label_config"]


@pytest.mark.parametrize(
    ("name", "boxes", "skipped"),
    [
        ("accepted-prediction", [("Dog", None, (0.1, 0.2, 0.4, 0.6))], False),
        (
            "drawn",
            [("Dog", None, (0.1, 0.2, 0.4, 0.6)), ("Dog", None, (0.144476, 0.124646, 0.35694, 0.365439))],
            False,
        ),
        ("exif6", [("Dog", None, (0.1, 0.2, 0.4, 0.6))], False),
        ("multipage", [("Dog", 0, (0.1, 0.2, 0.4, 0.6)), ("Cat", 1, (0.5, 0.2, 0.8, 0.6))], False),
        ("skip", [("Dog", None, (0.1, 0.2, 0.4, 0.6))], True),
    ],
)
def test_what_people_did_in_the_browser(shared: Path, name: str, boxes: list[Any], skipped: bool) -> None:
    listed, config = recorded(shared, f"webhook-annotation-created-ui-{name}")
    found = read_task(listed, parse_config(config))
    assert found is not None
    assert [(box.label, box.item_index) for box in found.boxes] == [(label, page) for label, page, _ in boxes]
    for box, (_, _, expected) in zip(found.boxes, boxes, strict=True):
        assert box.box == pytest.approx(expected, abs=1e-5)
    assert found.skipped == skipped
    assert found.lead_time is not None
    assert found.lead_time > 4
    assert found.prediction is None  # those were of another model


def test_a_moved_box_is_as_it_was_left(shared: Path) -> None:
    listed, config = recorded(shared, "webhook-annotation-updated-ui-moved")
    found = read_task(listed, parse_config(config))
    assert found is not None
    assert found.boxes[0].box == pytest.approx((0.194429, 0.242493, 0.494429, 0.642493), abs=1e-5)
    assert found.at.isoformat().startswith("2026-11-23T22:26:32")


def test_the_newest_annotation_counts_and_the_prediction_that_it_started_from() -> None:
    first, second = annotation(1), annotation(2, "2026-11-24T03:00:00Z", parent_prediction=11, was_cancelled=True)
    found = read_task(task([second, first], [prediction(11), prediction(12, version="boxlift-b-2")]), LABELLING)
    assert found is not None
    assert (found.annotation, found.skipped, found.task) == (2, True, 3)
    assert found.prediction is not None
    assert found.prediction.version == OURS
    assert found.prediction.score == 0.4
    assert [(box.label, box.score) for box in found.prediction.boxes] == [("Dog", 0.4), ("Cat", 0.7)]


def test_without_a_start_it_is_our_newest_of_that_moment() -> None:
    there = [
        prediction(11, version="boxlift-a-1"),
        prediction(12, version="boxlift-b-2"),
        prediction(13, version="somebody else's"),
        prediction(14, "2026-11-24T05:00:00Z", version="boxlift-c-3"),
    ]
    found = read_task(task([annotation()], there), LABELLING)
    assert found is not None
    assert found.prediction is not None
    assert found.prediction.version == "boxlift-b-2"
    from_another = read_task(task([annotation(parent_prediction=13)], there), LABELLING)
    assert from_another is not None
    assert from_another.prediction is None
    before_all = read_task(task([annotation(at="2026-11-24T00:00:00Z")], there), LABELLING)
    assert before_all is not None
    assert before_all.prediction is None


def test_what_a_command_accepted_is_nobodys_correction() -> None:
    accepted = annotation(parent_prediction=11, lead_time=0, result=[item(origin="prediction")])
    assert read_task(task([accepted], [prediction(11)]), LABELLING) is None
    assert read_task(task([], [prediction(11)]), LABELLING) is None
    person = annotation(0, "2026-11-24T01:30:00Z")
    found = read_task(task([accepted, person], [prediction(11)]), LABELLING)
    assert found is not None
    assert found.annotation == 0


def test_rectangles_with_labels_beside_them() -> None:
    pair = parse_config(
        '<View><Image name="image" value="$image"/><Rectangle name="box" toName="image"/>'
        '<Labels name="lab" toName="image"><Label value="Dog"/></Labels></View>'
    )
    geometry = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    labelled = geometry | {"labels": ["Dog"]}
    both = [
        {"id": "a", "from_name": "box", "to_name": "image", "type": "rectangle", "value": geometry},
        {
            "id": "a",
            "from_name": "lab",
            "to_name": "image",
            "type": "labels",
            "value": labelled,
        },
        {"id": "b", "from_name": "box", "to_name": "image", "type": "rectangle", "value": geometry},
    ]
    left_out = Counter[str]()
    found = read_boxes(both, pair, left_out)
    assert [(box.id, box.label) for box in found] == [("a", "Dog"), ("b", "")]
    assert not left_out


def test_what_is_no_box_is_left_out_and_counted() -> None:
    polygon = {"type": "polygonlabels", "from_name": "shape", "to_name": "image", "value": {"points": []}}
    unknown = item() | {"from_name": "of an older config"}
    nowhere = item() | {"to_name": "other"}
    flat = item()
    flat["value"]["width"] = 0
    left_out = Counter[str]()
    odd = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    found = read_boxes([polygon, item(), unknown, nowhere, flat, odd], LABELLING, left_out)
    assert len(found) == 1
    assert sum(left_out.values()) == 4
    assert left_out["polygonlabels of 'shape'"] == 1


def test_a_picture_that_somebody_turned_has_its_boxes_where_they_were() -> None:
    """Recorded in Label Studio 1.23.2: the same region before and after its picture was turned by 90 degrees."""
    before, after = (
        {
            "original_width": 800,
            "original_height": 600,
            "image_rotation": turn,
            "value": {"x": 10, "y": 20, "width": 30, "height": 15, "rotation": 0, "rectanglelabels": ["Cat"]},
            "id": "r1",
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "origin": "prediction",
        }
        for turn in (0, 90)
    )
    assert read_boxes([before], LABELLING, Counter()) == read_boxes([after], LABELLING, Counter())


def test_pages_without_a_number_are_the_first() -> None:
    pages = parse_config(CONFIG.replace('value="$image"', 'valueList="$images"'))
    [found] = read_boxes([item()], pages, Counter())
    assert found.item_index == 0
    assert found.place == ("image", 0)


def test_turned_rectangles_are_enclosed() -> None:
    """Label Studio turns clockwise about the first corner, in pixels."""
    value = {"x": 50, "y": 10, "width": 20, "height": 30, "rotation": 90}
    # 200 × 100 pixels: 40 × 30 pixels at (100, 10) become 30 wide (to the left) and 40 high.
    assert enclosing(value, 200, 100) == pytest.approx((70 / 200, 10 / 100, 100 / 200, 50 / 100))
    diagonal = enclosing(value | {"rotation": 45}, 100, 100)
    c = math.sqrt(0.5)
    assert diagonal == pytest.approx((0.5 - 0.3 * c, 0.1, 0.5 + 0.2 * c, 0.1 + 0.5 * c))
    assert enclosing(value | {"x": 99, "rotation": 0}, 200, 100) == pytest.approx((0.99, 0.1, 1.0, 0.4))
    for broken in ({"x": "left"}, {"x": math.nan}, {"width": 0}, {"x": 120}):
        assert enclosing(value | {"rotation": 0} | broken, 200, 100) is None


class Pages:
    """Label Studio's list of tasks, two to a page."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self.tasks = tasks
        self.paths: list[str] = []

    def request(self, method: str, path: str, doing: str, body: object = None) -> Any:
        self.paths.append(path)
        page = len(self.paths) - 1
        return {"tasks": self.tasks[2 * page : 2 * page + 2], "total": len(self.tasks)}


def test_a_whole_project_is_read_page_by_page(caplog: pytest.LogCaptureFixture) -> None:
    strange = annotation(result=[item(), {"type": "brushlabels", "from_name": "b", "value": {}}])
    listed = [task([strange], [prediction(11)]) | {"id": number} for number in range(1, 6)]
    pages = Pages(listed)
    found = corrections(pages, 7, LABELLING)
    assert [correction.task for correction in found] == [1, 2, 3, 4, 5]
    assert len(pages.paths) == 3
    assert all("/api/tasks/" not in f"/{path}" for path in pages.paths), "opening a task asks for its prediction"
    assert "5 × brushlabels of 'b'" in caplog.text
    assert json.loads(json.dumps(found[0].boxes[0].box)) == list(found[0].boxes[0].box)
    assert isinstance(found[0].boxes[0], LabelledBox)
