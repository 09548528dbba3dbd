"""Results → predictions, checked by the validation that Label Studio's own SDK brings."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.labelling import LabelMap, match_labels, parse_config
from backend.labelling.imagenet import taxonomy
from backend.predictions import to_prediction
from worker.contract import Detection, ImageRef, ImageResult, Result

VERSION = "boxlift-vgg16-0123456789ab"
NAMES = taxonomy().names
PUG, TABBY = 254, 281

RECTANGLE_LABELS = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/><Label value="Cat"/></RectangleLabels></View>'
)
RECTANGLE_AND_LABELS = (
    '<View><Image name="image" value="$image"/><Rectangle name="box" toName="image"/>'
    '<Labels name="lab" toName="image"><Label value="Dog"/><Label value="Cat"/></Labels></View>'
)
PAGES = RECTANGLE_LABELS.replace('value="$image"', 'valueList="$images"')
BARE = '<View><Image name="image" value="$image"/><Rectangle name="box" toName="image"/></View>'
TWO = (
    '<View><Image name="a" value="$a"/><Image name="b" value="$b"/>'
    '<RectangleLabels name="la" toName="a"><Label value="Dog"/></RectangleLabels>'
    '<RectangleLabels name="lb" toName="b" model_score_threshold="0.5"><Label value="Dog"/>'
    "</RectangleLabels></View>"
)


def mapping(config: str) -> LabelMap:
    return match_labels(parse_config(config), NAMES)


def found(
    *detections: tuple[int, float, tuple[float, float, float, float]],
    to_name: str = "image",
    page: int | None = None,
    size: tuple[int, int] = (200, 100),
) -> ImageResult:
    return ImageResult(
        ImageRef("http://h/a.jpg", to_name, page),
        *size,
        detections=tuple(Detection(NAMES[index], index, score, box) for index, score, box in detections),
    )


def result(*images: ImageResult) -> Result:
    return Result(5, 7, VERSION, "plan", images)


def predict(config: str, *images: ImageResult) -> dict:
    prediction = to_prediction(result(*images), mapping(config))
    assert prediction is not None
    assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
    return prediction


def test_one_box_in_percent_of_the_upright_picture() -> None:
    prediction = predict(RECTANGLE_LABELS, found((PUG, 0.75, (20, 10, 120, 60))))
    (item,) = prediction["result"]
    assert item["value"] == {
        "x": 10.0, "y": 10.0, "width": 50.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["Dog"]
    }  # fmt: skip
    assert (item["original_width"], item["original_height"], item["image_rotation"]) == (200, 100, 0)
    assert (item["type"], item["from_name"], item["to_name"]) == ("rectanglelabels", "label", "image")
    assert (item["score"], prediction["score"], prediction["model_version"]) == (0.75, 0.75, VERSION)
    assert "item_index" not in item


def test_two_items_with_one_id_for_rectangle_and_labels() -> None:
    first, second = predict(RECTANGLE_AND_LABELS, found((TABBY, 0.5, (0, 0, 200, 100))))["result"]
    assert first["id"] == second["id"]
    assert (first["from_name"], first["type"]) == ("box", "rectangle")
    assert (second["from_name"], second["type"], second["value"]["labels"]) == ("lab", "labels", ["Cat"])
    assert "labels" not in first["value"]


def test_a_bare_rectangle_takes_any_class() -> None:
    (item,) = predict(BARE, found((999, 0.5, (0, 0, 20, 20))))["result"]
    assert (item["type"], set(item["value"])) == ("rectangle", {"x", "y", "width", "height", "rotation"})


def test_pages_carry_their_index() -> None:
    pages = [found((PUG, 0.9, (0, 0, 20, 20)), page=0), found(page=1), found((TABBY, 0.4, (0, 0, 20, 20)), page=2)]
    prediction = predict(PAGES, *pages)
    assert [item["item_index"] for item in prediction["result"]] == [0, 2]
    assert prediction["score"] == 0.4
    assert len({item["id"] for item in prediction["result"]}) == 2


def test_every_image_tag_gets_its_own_boxes_under_its_own_rules() -> None:
    box = (PUG, 0.3, (0.0, 0.0, 20.0, 20.0))
    items = predict(TWO, found(box, to_name="a"), found(box, to_name="b"))["result"]
    assert [(item["from_name"], item["to_name"]) for item in items] == [("la", "a")]


def test_the_best_boxes_within_the_number_that_is_asked_for() -> None:
    boxes = [(PUG, 0.2, (0, 0, 50, 50)), (PUG, 0.9, (50, 0, 90, 50)), (TABBY, 0.5, (0, 50, 90, 90))]
    assert [item["score"] for item in predict(RECTANGLE_LABELS, found(*boxes))["result"]] == [0.9]
    two = RECTANGLE_LABELS.replace("toName", 'model_max_boxes="2" toName')
    assert [item["score"] for item in predict(two, found(*boxes))["result"]] == [0.9, 0.5]


def test_looked_and_found_nothing() -> None:
    nothing = {"result": [], "score": 0.0, "model_version": VERSION}
    assert predict(RECTANGLE_LABELS, found()) == nothing
    assert predict(RECTANGLE_LABELS, found((999, 0.9, (0, 0, 9, 9)))) == nothing


def test_failures_are_no_prediction() -> None:
    failed = ImageResult(ImageRef("http://h/a.jpg", "image", 0), error="could not be fetched")
    assert to_prediction(result(failed), mapping(RECTANGLE_LABELS)) is None
    assert to_prediction(result(), mapping(RECTANGLE_LABELS)) is None
    good = found((PUG, 0.9, (0, 0, 20, 20)), page=1)
    assert len(predict(PAGES, failed, good)["result"]) == 1


def test_the_same_work_gives_the_same_ids() -> None:
    one, two = (predict(RECTANGLE_LABELS, found((PUG, 0.9, (1, 2, 20, 20)))) for _ in range(2))
    assert one == two


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(
    boxes=st.lists(st.tuples(st.sampled_from([PUG, TABBY, 999]), numbers, st.tuples(*[numbers] * 4)), max_size=5),
    size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    config=st.sampled_from([RECTANGLE_LABELS, RECTANGLE_AND_LABELS, BARE]),
)
def test_whatever_comes_label_studio_accepts_it(boxes: list, size: tuple[int, int], config: str) -> None:
    prediction = predict(config, found(*boxes, size=size))
    json.dumps(prediction, allow_nan=False)
    for item in prediction["result"]:
        value = item["value"]
        assert 0 <= value["x"] <= value["x"] + value["width"] <= 100 + 1e-9
        assert 0 <= value["y"] <= value["y"] + value["height"] <= 100 + 1e-9
        assert min(value["width"], value["height"]) > 0
        assert 0 <= item["score"] <= 1


@pytest.mark.parametrize("score", [math.nan, math.inf, -1.0, 2.0])
def test_scores_are_always_finite(score: float) -> None:
    assert 0 <= predict(RECTANGLE_LABELS, found((PUG, score, (0, 0, 9, 9))))["score"] <= 1
