"""Smart tools: what is asked of the workers for a click or a rough rectangle, and which box is the answer."""

from __future__ import annotations

from typing import Any

import pytest
from desk import VERSION, Desk
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.interactive import AROUND, _surroundings, drawn
from backend.labelling.imagenet import taxonomy
from worker.contract import Box, Detection, ImageResult, Request, Result

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<KeyPointLabels name="tag" toName="image" smart="true"><Label value="Dog"/><Label value="Defect"/>'
    '</KeyPointLabels><RectangleLabels name="label" toName="image" smart="true">'
    '<Label value="Dog"/><Label value="Cat"/><Label value="Defect"/></RectangleLabels></View>'
)
PUG, TABBY = 254, 281


class Scripted(Desk):
    """Finds what it is told to find: in the whole picture, and where it looks closer."""

    whole: tuple[tuple[int, float, Box], ...] = ()
    closer: tuple[tuple[int, float, Box], ...] = ()

    def find(self, request: Request) -> Result:
        plan = self.plans[request.plan]
        (ref,) = request.images
        found = self.whole if ref.region is None else self.closer
        allowed = plan.classes_for(ref)
        detections = tuple(
            Detection(taxonomy().names[index], index, score, box)
            for index, score, box in found
            if allowed is None or index in allowed
        )
        image = ImageResult(ref, 200, 100, detections)
        return Result(request.project, request.task, request.model_version, request.plan, (image,))


@pytest.fixture
def desk(model: Any) -> Scripted:
    """Overrides the plain desk."""
    return Scripted(model)


def click(x: float, y: float, label: str = "Dog") -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.4, "keypointlabels": [label]}
    return {"type": "keypointlabels", "from_name": "tag", "to_name": "image", "is_positive": True, "value": value}


def rectangle(x: float, y: float, width: float, height: float, label: str = "Dog") -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}


def ask(client: FlaskClient, *items: dict[str, Any], config: str = CONFIG, data: Any = None) -> dict[str, Any]:
    task = {"id": 7, "data": data or {"image": "http://h/7.jpg"}, "drafts": [], "predictions": []}
    request = {
        "tasks": [task],
        "project": "5.1",
        "label_config": config,
        "params": {"context": {"result": [*items]}},
    }
    answer = client.post("/predict", json=request)
    assert answer.status_code == 200
    (entry,) = answer.get_json()["results"]
    assert LabelInterface(config).validate_prediction(entry, return_errors=True) == []
    return dict(entry)


def test_a_click_means_the_smallest_box_around_it(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = (
        (PUG, 0.9, (0, 0, 200, 100)),
        (PUG, 0.6, (20, 20, 80, 80)),
        (PUG, 0.8, (150, 20, 190, 80)),
        (TABBY, 0.9, (40, 40, 60, 60)),
    )
    entry = ask(client, click(25, 50))
    (item,) = entry["result"]
    assert item["value"]["rectanglelabels"] == ["Dog"]
    assert (item["value"]["x"], item["value"]["width"]) == (10.0, 30.0)
    assert (item["from_name"], entry["model_version"]) == ("label", VERSION)
    ((requests, interactive, wait),) = desk.asked
    assert interactive
    assert wait > 0
    assert not requests[0].push


def test_a_second_click_asks_for_the_same_job(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = ((PUG, 0.9, (0, 0, 100, 100)),)
    ask(client, click(10, 10))
    ask(client, click(40, 60))
    first, second = (asked[0][0] for asked in desk.asked)
    assert first.job_id == second.job_id


def test_a_click_outside_all_boxes_is_looked_at_closer(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = ((PUG, 0.9, (0, 0, 20, 20)),)
    desk.closer = ((PUG, 0.4, (150, 60, 190, 90)),)
    (item,) = ask(client, click(80, 75))["result"]
    assert item["value"]["x"] == 75.0
    assert desk.asked[1][0][0].images[0].region == (0.5, 0.5, 1.0, 1.0)


def test_any_number_of_clicks_is_at_most_ten_jobs(client: FlaskClient, desk: Scripted) -> None:
    """Nothing lies under any of them, which is the dearest case."""
    for x in range(0, 101, 5):
        for y in range(0, 101, 5):
            ask(client, click(x, y))
    regions = {requests[0].images[0].region for requests, _, _ in desk.asked}
    assert len({requests[0].job_id for requests, _, _ in desk.asked}) == len(regions) == 10
    parts = [region for region in regions if region is not None]
    assert {(x1 - x0, y1 - y0) for x0, y0, x1, y1 in parts} == {(0.5, 0.5)}
    assert {side for region in parts for side in region} == {0.0, 0.25, 0.5, 0.75, 1.0}


@given(x=st.floats(0, 100), y=st.floats(0, 100))
def test_a_click_lies_well_inside_its_part(x: float, y: float) -> None:
    found = drawn({"result": [click(x, y)]})
    assert found is not None
    x0, y0, x1, y1 = _surroundings(found)
    for at, low, high in ((x / 100, x0, x1), (y / 100, y0, y1)):
        assert low == 0 or at - low >= AROUND / 2
        assert high == 1 or high - at >= AROUND / 2


def test_a_rough_rectangle_is_tightened_in_its_own_part(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = ((PUG, 0.9, (0, 0, 200, 100)),)
    desk.closer = ((PUG, 0.5, (44, 24, 96, 76)), (PUG, 0.9, (30, 20, 40, 30)))
    (item,) = ask(client, rectangle(20, 20, 30, 60))["result"]
    assert (item["value"]["x"], item["value"]["y"]) == (22.0, 24.0)
    ((requests, _, _),) = desk.asked
    assert requests[0].images[0].region == (0.155, 0.11, 0.545, 0.89)


def test_a_label_that_no_class_reaches_is_what_the_person_says(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = ((TABBY, 0.7, (20, 20, 80, 80)),)
    (item,) = ask(client, click(25, 50, "Defect"))["result"]
    assert item["value"]["rectanglelabels"] == ["Defect"]


def test_a_label_that_no_box_can_have_is_answered_with_nothing(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = desk.closer = ((PUG, 0.9, (0, 0, 200, 100)),)
    offered = '<Label value="Dog"/><Label value="Defect"/></KeyPointLabels>'
    zebra = CONFIG.replace(offered, '<Label value="Zebra"/></KeyPointLabels>')
    assert ask(client, click(50, 50, "Zebra"), config=zebra)["result"] == []
    assert desk.asked == []
    # A rectangle without labels is what every label may become.
    bare = zebra[: zebra.index("<RectangleLabels")] + '<Rectangle name="label" toName="image"/></View>'
    (item,) = ask(client, click(50, 50, "Zebra"), config=bare)["result"]
    assert item["type"] == "rectangle"


def test_a_click_on_what_is_not_meant_finds_nothing(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = ((PUG, 0.6, (20, 20, 80, 80)), (PUG, 0.8, (150, 20, 190, 80)))
    away = click(80, 50) | {"is_positive": False}
    assert ask(client, away)["result"] == []
    (item,) = ask(client, click(25, 50), away)["result"]
    assert item["value"]["x"] == 10.0


def test_pages_and_several_images(client: FlaskClient, desk: Scripted) -> None:
    desk.whole = ((PUG, 0.9, (0, 0, 200, 100)),)
    pages = CONFIG.replace('value="$image"', 'valueList="$images"')
    data = {"images": ["http://h/0.jpg", "http://h/1.jpg"]}
    (item,) = ask(client, click(50, 50) | {"item_index": 1}, config=pages, data=data)["result"]
    assert item["item_index"] == 1
    assert desk.asked[0][0][0].images[0].url == "http://h/1.jpg"


def test_where_nothing_fits_there_is_one_empty_prediction(client: FlaskClient, desk: Scripted) -> None:
    empty = {"result": [], "score": 0.0, "model_version": VERSION}
    assert ask(client, click(50, 50)) == empty
    assert ask(client, click(50, 50) | {"to_name": "other"}) == empty
    assert ask(client, {"type": "brush", "to_name": "image", "value": {}}) == empty
    desk.ready = False
    assert ask(client, click(50, 50)) == empty


junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())
items = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["keypointlabels", "rectanglelabels", "keypoint", "rectangle"]) | junk,
        "to_name": st.just("image") | junk,
        "item_index": junk,
        "value": junk
        | st.dictionaries(st.sampled_from(["x", "y", "width", "height", "labels"]), junk | st.floats(0, 100)),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(items | junk, max_size=3))
def test_any_context_is_answered(client: FlaskClient, desk: Scripted, context: list[Any]) -> None:
    desk.whole = desk.closer = ((PUG, 0.9, (0, 0, 200, 100)),)
    assert isinstance(ask(client, *context)["result"], list)
