"""What workers are asked for: as many boxes as every tag needs to get its own."""

from __future__ import annotations

from typing import Any

import pytest
from desk import VERSION, Desk
from flask.testing import FlaskClient

from backend.labelling.imagenet import taxonomy
from backend.plans import SHARED, read_config
from worker.contract import Detection, ImageResult, Model, Request, Result

PUG, TABBY, WAGON = 254, 281, 436


def labels(name: str, label: str, attributes: str = "", image: str = "image") -> str:
    tag = f'<RectangleLabels name="{name}" toName="{image}" {attributes}><Label value="{label}"/>'
    return f"{tag}</RectangleLabels>"


def view(*tags: str, images: tuple[str, ...] = ("image",)) -> str:
    shown = "".join(f'<Image name="{name}" value="${name}"/>' for name in images)
    return f"<View>{shown}{''.join(tags)}</View>"


@pytest.mark.parametrize(
    ("config", "most"),
    [
        (view(labels("a", "Dog")), 1),
        (view(labels("a", "Dog", 'model_max_boxes="3"')), 3),
        (view(labels("a", "Dog"), labels("b", "Cat")), SHARED),
        (view(labels("a", "Dog", 'model_max_boxes="30"'), labels("b", "Cat")), 31),
        (view(labels("a", "Dog"), labels("b", "Cat", 'model_skip="true"')), 1),
        (view(labels("a", "Dog"), labels("b", "Cat", image="other"), images=("image", "other")), 1),
        (
            view(
                '<Rectangle name="box" toName="image"/>',
                '<Labels name="a" toName="image"><Label value="Dog"/></Labels>',
                '<Labels name="b" toName="image"><Label value="Cat"/></Labels>',
            ),
            1,
        ),
    ],
)
def test_boxes_that_are_asked_for(config: str, most: int, model: Model) -> None:
    plan = read_config(config, model, "skip").plan
    assert plan is not None
    assert plan.max_boxes == most


class Found(Desk):
    """Two dogs that score more than the cat; no more boxes come than the plan says, as from workers."""

    boxes: tuple[tuple[int, float], ...] = ((PUG, 0.9), (PUG, 0.8), (TABBY, 0.5))

    def find(self, request: Request) -> Result:
        found = [Detection(taxonomy().names[c], c, score, (10, 10, 50, 50)) for c, score in self.boxes]
        [ref] = request.images
        image = ImageResult(ref, 100, 100, tuple(found[: self.plans[request.plan].max_boxes]))
        return Result(request.project, request.task, request.model_version, request.plan, (image,))


@pytest.fixture
def desk(model: Model) -> Found:
    """Overrides the plain desk."""
    return Found(model)


def predict(client: FlaskClient, config: str) -> list[dict[str, Any]]:
    tasks = [{"id": 1, "data": {"image": "http://h/1.jpg"}}]
    answer = client.post("/predict", json={"tasks": tasks, "project": 5, "label_config": config})
    [entry] = answer.get_json()["results"]
    assert entry["model_version"] == VERSION
    return list(entry["result"])


def test_no_tag_takes_another_ones_boxes(client: FlaskClient) -> None:
    found = predict(client, view(labels("dogs", "Dog"), labels("cats", "Cat")))
    assert [item["from_name"] for item in found] == ["dogs", "cats"]


def test_a_rectangle_with_two_labels_tags_draws_under_both(client: FlaskClient, desk: Found) -> None:
    config = view(
        '<Rectangle name="box" toName="image"/>',
        '<Labels name="pets" toName="image"><Label value="Dog"/></Labels>',
        '<Labels name="cars" toName="image"><Label value="Car"/></Labels>',
    )
    for index, partner, label in ((PUG, "pets", "Dog"), (WAGON, "cars", "Car")):
        desk.boxes = ((index, 0.9),)
        rectangle, named = predict(client, config)
        assert (rectangle["from_name"], named["from_name"], named["value"]["labels"]) == ("box", partner, [label])
