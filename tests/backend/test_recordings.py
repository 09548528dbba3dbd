"""Label Studio's recorded requests, replayed: every answer is one that Label Studio accepts."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import VERSION, Desk, recordings
from flask import Flask
from flask.testing import FlaskClient
from label_studio_sdk.label_interface.interface import LabelInterface


def replay(client: FlaskClient, recording: dict[str, Any], **changed: str) -> Any:
    request = recording["request"]
    headers = {name: value for name, value in request["headers"].items() if name not in ("Host", "Content-Length")}
    headers |= changed
    body = None if request["body"] is None else json.dumps(request["body"])
    return client.open(request["path"], method=request["method"], headers=headers, data=body)


def check_entries(body: dict[str, Any], results: Any) -> int:
    """Check what label-studio.md says of answers; returns the number of boxes."""
    assert isinstance(results, list)
    assert len(results) == len(body["tasks"])
    interface = LabelInterface(body["label_config"])
    boxes = 0
    for entry in results:
        for prediction in [entry] if isinstance(entry, dict) else entry:
            assert interface.validate_prediction(prediction, return_errors=True) == []
            assert prediction["model_version"] == VERSION
            assert 0 <= prediction["score"] <= 1
            boxes += len(prediction["result"])
    return boxes


REQUESTS = ("health", "versions", "setup", "predict", "answer", "interactive", "webhook")
"""What the names of requests to a backend begin with; `api` are requests to Label Studio."""


def test_every_kind_of_recording_is_known(shared: Path) -> None:
    """Each kind has a test below that replays all of it; `api` is replayed in test_recorded_studio.py."""
    names = {name for name, _ in recordings(shared, "")}
    assert len(names) >= 80
    assert names == {name for name, _ in recordings(shared, "api", *REQUESTS)}


def test_health_and_versions(client: FlaskClient, shared: Path) -> None:
    found = recordings(shared, "health", "versions")
    assert {name for name, _ in found} == {"health", "health-wrong-basic-auth", "versions"}
    for name, recording in found:
        answer = replay(client, recording)
        assert answer.status_code == 200, name
        assert answer.get_json().get("versions", [VERSION]) == [VERSION]


def test_recordings_with_and_without_passwords(make_app: Callable[..., Flask], shared: Path) -> None:
    """Authorization was cut out of the recordings: what they name is put back."""
    client = make_app(basic_auth="studio:pass", webhook_secret="s3cret").test_client()
    found = dict(recordings(shared, *REQUESTS))
    right, wrong = ("Basic " + base64.b64encode(text).decode() for text in (b"studio:pass", b"studio:other"))
    setup, trained = found["setup-basic-auth"], found["webhook-start-training-basic-auth"]
    assert replay(client, found["health"]).status_code == 200
    assert replay(client, found["health-wrong-basic-auth"], Authorization=wrong).status_code == 401
    assert replay(client, setup, Authorization=wrong).status_code == 401
    assert replay(client, setup, Authorization=right).get_json()["model_version"] == VERSION
    assert replay(client, trained, Authorization=right).status_code == 201
    assert replay(client, found["webhook-annotation-created-no-auth"], Authorization="").status_code == 401
    carrying = found["webhook-annotation-created-custom-headers"]
    assert replay(client, carrying, Authorization="", **{"X-Boxlift-Secret": "s3cret"}).status_code == 201


def test_every_setup(client: FlaskClient, shared: Path) -> None:
    found = recordings(shared, "setup")
    assert len(found) >= 9
    for name, recording in found:
        answer = replay(client, recording)
        assert answer.status_code == 200, name
        told = answer.get_json()
        assert told["model_version"] == VERSION
        no_boxes = name in ("setup-choices-only", "setup-empty-config")
        assert no_boxes == ("RectangleLabels" in told.get("message", "")), name


def test_every_prediction(client: FlaskClient, shared: Path) -> None:
    found = recordings(shared, "predict", "answer")
    assert len(found) >= 30
    for name, recording in found:
        answer = replay(client, recording)
        assert answer.status_code == 200, name
        body = recording["request"]["body"]
        boxes = check_entries(body, answer.get_json()["results"])
        assert (boxes > 0) == (name != "predict-choices"), name


def test_nothing_ready_is_an_empty_list_per_task(client: FlaskClient, desk: Desk, shared: Path) -> None:
    desk.ready = False
    for name, recording in recordings(shared, "predict", "answer"):
        answer = replay(client, recording)
        assert answer.get_json()["results"] == [[]] * len(recording["request"]["body"]["tasks"]), name


def test_interactive_requests_get_one_prediction(client: FlaskClient, shared: Path) -> None:
    found = recordings(shared, "interactive")
    assert len(found) == 3
    for name, recording in found:
        (entry,) = replay(client, recording).get_json()["results"]
        assert isinstance(entry["result"], list), name
        check_entries(recording["request"]["body"], [entry])


def test_drawings_of_the_browser_get_a_box(client: FlaskClient, desk: Desk, shared: Path) -> None:
    for name, recording in recordings(shared, "interactive-keypoint-ui", "interactive-rectangle-ui"):
        value = recording["request"]["body"]["params"]["context"]["result"][0]["value"]
        desk.box = (value["x"] - 10, value["y"] - 10, value["x"] + 10, value["y"] + 10)
        [entry] = replay(client, recording).get_json()["results"]
        [item] = entry["result"]
        assert item["value"]["x"] == pytest.approx(value["x"] - 10, abs=0.001), name
        assert item["value"]["rectanglelabels"] == ["Dog"]


def test_every_event_is_taken(client: FlaskClient, shared: Path) -> None:
    found = recordings(shared, "webhook")
    assert len(found) >= 20
    for name, recording in found:
        answer = replay(client, recording)
        assert answer.status_code == 201, name
        assert answer.get_json()["status"] in ("accepted", "ignored"), name


def test_multipage_and_two_images(client: FlaskClient, desk: Desk, shared: Path) -> None:
    found = dict(recordings(shared, "predict-multipage", "predict-two-images", "predict-rectangle-plus"))
    pages = replay(client, found["predict-multipage"]).get_json()["results"][0]["result"]
    assert [item["item_index"] for item in pages] == [0, 1, 2]
    two = replay(client, found["predict-two-images"]).get_json()["results"][0]["result"]
    assert [(item["from_name"], item["to_name"]) for item in two] == [("l1", "img1"), ("l2", "img2")]
    pair = replay(client, found["predict-rectangle-plus-labels"]).get_json()["results"][0]["result"]
    assert [item["type"] for item in pair] == ["rectangle", "labels"]
    assert pair[0]["id"] == pair[1]["id"]


def test_many_tasks_are_not_waited_for(client: FlaskClient, desk: Desk, shared: Path) -> None:
    found = dict(recordings(shared, "predict-retrieve", "predict-upload"))
    replay(client, found["predict-retrieve-9-image-kinds"])
    replay(client, found["predict-upload"])
    (many, few) = desk.asked
    assert (many[1], many[2]) == (False, 0.0)
    assert few[1]
    assert few[2] > 0
    assert few[0][0].project == 5
