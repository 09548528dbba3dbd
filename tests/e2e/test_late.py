"""Predictions that come late become drafts too, where these are wanted; what is skipped is nobody's to accept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend.accepting import accept
from backend.delivery import Delivery
from backend.demo.photos import label_config, photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.plans import read_config
from backend.queueing import Jobs, connect
from backend.redis_server import RedisServer
from backend.settings import Settings
from backend.studio import Studio
from worker.contract import Detection, ImageRef, ImageResult, Result, model_key

# Label Studio is asked in this process, and label_studio_sdk calls what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@pytest.mark.parametrize("write", ["predictions", "drafts"])
def test_late_predictions(write: str, stack: Stack, studio: StudioApi) -> None:
    number = studio.create_project(f"late {write}", label_config())
    task, skipped = studio.upload(number, [photo.path for photo in photos()[:2]])
    studio.call("POST", f"/api/tasks/{skipped}/annotations/", json={"result": [], "was_cancelled": True})
    data = {item["id"]: item["data"] for item in studio.tasks(number)}
    model = stack.model()
    assert model is not None
    reading = read_config(label_config(), model, "skip")
    assert reading.plan is not None
    index = min(reading.mapping.targets["image"])
    found = Detection(model.classes[index], index, 0.9, (10.0, 20.0, 60.0, 80.0))
    settings = Settings(write=write, studio_url=stack.studio.url, studio_token=stack.studio.login.token)
    with RedisServer() as server:  # of its own: the stack's worker would be first
        client = connect(server.url)
        client.set(model_key(model.version), json.dumps(model.to_dict()))
        jobs = Jobs(client)
        plan = jobs.put_plan(reading.plan)
        for one in (task, skipped):
            image = ImageResult(ImageRef(data[one]["image"], "image"), 100, 100, (found,))
            jobs.hand_over([Result(number, one, model.version, plan, (image,))])
        delivery = Delivery.of(replace(settings, redis_url=server.url))
        assert delivery.round() == 2
        delivery.stop()
        client.close()
    drafts = {one: studio.call("GET", f"/api/tasks/{one}/drafts", params=None) for one in (task, skipped)}
    stored = {item["task"]: item["result"] for item in studio.predictions(number)}
    assert set(stored) == {task, skipped}
    assert [draft["result"][0]["value"] for draft in drafts[task]] == (
        [stored[task][0]["value"]] if write == "drafts" else []
    )
    assert drafts[skipped] == []

    api = Studio(stack.studio.url, stack.studio.login.token)
    outcome = accept(api, number, model.version, 0.5, write=True)
    api.close()
    assert (outcome.accepted, outcome.untouched) == ((0, 2) if write == "drafts" else (1, 1))
    [left] = studio.task(skipped)["annotations"]
    assert left["was_cancelled"]
