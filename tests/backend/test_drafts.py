"""Drafts: only where they are wanted, and never where somebody has worked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from flask import Flask

from backend import app as application
from backend.drafts import write_drafts
from worker.errors import StudioError

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/></RectangleLabels></View>'
)


class Studio:
    """Label Studio's answers to the three calls that drafts need."""

    def __init__(self) -> None:
        self.present: dict[Any, Any] = {}
        self.posted: list[tuple[str, Any]] = []

    def request(self, method: str, path: str, doing: str, body: object = None) -> Any:
        if method == "POST":
            self.posted.append((path, body))
            return {}
        if path.startswith("api/tasks?"):
            [item] = json.loads(parse_qs(path.partition("?")[2])["query"][0])["filters"]["items"]
            one = {"total_annotations": 0, "cancelled_annotations": 0}
            return {"tasks": [one | self.present.get(item["value"], {})]}
        found = self.present.get(path.removeprefix("api/tasks/").rstrip("/"), [])
        if isinstance(found, Exception):
            raise found
        return found


def prediction(task: int, boxes: int = 1) -> dict[str, Any]:
    return {"task": task, "result": [{"id": "a"}] * boxes, "score": 0.5, "model_version": "v"}


def test_a_draft_is_made_of_what_has_boxes_and_nobody_touched() -> None:
    tasks = {"1/drafts": [{"id": 1}], 2: {"cancelled_annotations": 1}, 5: {"total_annotations": 1}}
    studio = Studio()
    studio.present = tasks
    predictions = [prediction(1), prediction(2), prediction(3), prediction(4, boxes=0), prediction(5)]
    assert write_drafts(studio, 5, predictions) == 1
    assert studio.posted == [("api/tasks/3/drafts", {"result": [{"id": "a"}], "lead_time": 0})]


def test_one_task_that_fails_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    studio = Studio()
    studio.present = {"1/drafts": StudioError("refused", 403)}
    assert write_drafts(studio, 5, [prediction(1), prediction(2)]) == 1
    assert "refused" in caplog.text


def test_what_predict_answers_becomes_a_draft_only_if_wanted(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = Studio()
    monkeypatch.setattr(application, "Studio", lambda url, token: studio)
    request = {"tasks": [{"id": 7, "data": {"image": "http://h/7.jpg"}}], "project": "5.1", "label_config": CONFIG}
    for write, number in (("predictions", 0), ("drafts", 1)):
        app = make_app(write=write, studio_url="http://studio", studio_token="t")
        (entry,) = app.test_client().post("/predict", json=request).get_json()["results"]
        interactive = request | {"params": {"context": {"result": []}}}
        app.test_client().post("/predict", json=interactive)
        app.extensions["boxlift-drafts"].close()
        assert len(studio.posted) == number
    assert studio.posted[0] == ("api/tasks/7/drafts", {"result": entry["result"], "lead_time": 0})


def test_drafts_need_a_label_studio(make_app: Callable[..., Flask]) -> None:
    with pytest.raises(StudioError, match="LABEL_STUDIO_URL"):
        make_app(write="drafts")
