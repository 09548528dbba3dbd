"""Whole projects and folders with a real Label Studio: every task one prediction, whenever it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from backend.bulk.project import remove_older
from backend.bulk.tasks import list_tasks
from backend.demo.photos import FOLDER, label_config, photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.studio import Studio
from worker.contract import outbox_key, sending_key

from .test_integration import boxlift, run, until

FILES = sorted(photo.path for photo in photos())
OLD = "boxlift-vgg16-000000000000"


def versions(studio: StudioApi, project: int) -> dict[int, list[str]]:
    """Task → versions of its predictions."""
    found: dict[int, list[str]] = {}
    for item in sorted(studio.predictions(project), key=lambda item: item["id"]):
        found.setdefault(item["task"], []).append(item["model_version"])
    return found


def imported(studio: StudioApi, project: int, task: int, version: str) -> dict[str, Any]:
    """A prediction without boxes, of somebody else or of an older version."""
    body = [{"task": task, "result": [], "score": 0.1, "model_version": version}]
    studio.call("POST", f"/api/projects/{project}/import/predictions", json=body)
    [made] = [item for item in studio.predictions(project, version) if item["task"] == task]
    return dict(made)


def test_which_tasks_are_predicted_and_which_predictions_go(stack: Stack, studio: StudioApi, version: str) -> None:
    project = studio.create_project("modes", label_config())
    tasks = studio.upload(project, FILES[:6])
    bare, both, annotated, *others = tasks
    for task in (bare, both):
        imported(studio, project, task, OLD)
    imported(studio, project, both, "theirs")
    parent = imported(studio, project, annotated, OLD)["id"]
    body = {"result": [], "parent_prediction": parent, "lead_time": 2.0}
    studio.call("POST", f"/api/tasks/{annotated}/annotations/", json=body)
    item = {"filter": "filter:tasks:id", "operator": "in", "type": "Number", "value": {"min": bare, "max": both}}
    tab = {"title": "two", "filters": {"conjunction": "and", "items": [item]}}
    made = studio.call("POST", "/api/dm/views", params={"project": project}, json={"project": project, "data": tab})

    def predict(*options: str) -> tuple[int, int]:
        """How many tasks were to be predicted, and how many had what they need."""
        summary = boxlift(stack, "preannotate", "--project", str(project), *options)
        assert (summary["done"], summary["failed"]) == (summary["total"], 0)
        return summary["total"], summary["already"]

    assert predict("--filter", "two", "--only-missing") == (0, 2)
    assert predict("--filter", str(made["id"])) == (2, 0)
    expected = {bare: [OLD, version], both: [OLD, "theirs", version], annotated: [OLD]}
    assert versions(studio, project) == expected
    assert predict("--only-missing") == (3, 3)
    expected |= {task: [version] for task in others}
    assert versions(studio, project) == expected
    assert predict("--replace", "--unannotated") == (0, 5)
    expected |= {bare: [version], both: ["theirs", version]}
    assert versions(studio, project) == expected
    # An annotation names the prediction that it started from: that one stays.
    assert predict("--replace") == (1, 5)
    assert versions(studio, project) == expected | {annotated: [OLD, version]}
    assert studio.call("GET", f"/api/tasks/{annotated}/annotations/")[0]["parent_prediction"] == parent
    unknown = run(stack, "preannotate", "--project", str(project), "--filter", "nowhere")
    assert unknown.returncode == 3
    assert "(two)" in unknown.stderr


def test_a_photo_that_cannot_be_used_is_named_and_costs_only_itself(
    stack: Stack, studio: StudioApi, version: str, tmp_path: Path
) -> None:
    project = studio.create_project("broken", label_config())
    broken = tmp_path / "broken.jpg"
    broken.write_text("no photo")
    good, bad = studio.upload(project, [FILES[0], broken])
    done = run(stack, "preannotate", "--project", str(project), "--json")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["done"], list(summary["failures"])) == (1, [str(bad)])
    assert "not a picture" in summary["failures"][str(bad)]
    assert versions(studio, project) == {good: [version]}


def test_a_page_that_cannot_be_used_is_told_of(stack: Stack, studio: StudioApi, image_server: str) -> None:
    config = label_config().replace('value="$image"', 'valueList="$pages"')
    assert "valueList" in config
    project = studio.create_project("half broken", config)
    pages = [f"{image_server}/{FILES[0].name}", f"{image_server}/missing.jpg"]
    [task] = studio.import_tasks(project, [{"pages": pages}])
    summary = boxlift(stack, "preannotate", "--project", str(project))
    assert (summary["done"], summary["failed"]) == (1, 0)
    [warning] = [text for text in summary["warnings"] if text.startswith(f"task {task}: ")]
    assert "missing.jpg" in warning


def test_killed_and_started_again_every_task_has_one_prediction(
    stack: Stack, studio: StudioApi, version: str
) -> None:
    project = studio.create_project("killed", label_config())
    tasks = [task for _ in range(3) for task in studio.upload(project, FILES)]
    client = redis.Redis.from_url(stack.redis.url)

    def delivering() -> bool:
        """Whether a result is on its way to Label Studio just now, or all are there already."""
        on_their_way = client.hlen(outbox_key(project)) or client.hlen(sending_key(project))
        return bool(on_their_way) or len(versions(studio, project)) == len(tasks)

    moments: list[Callable[[], bool]] = [
        lambda: True,
        lambda: len(versions(studio, project)) >= 1,
        delivering,
        lambda: len(versions(studio, project)) >= len(tasks) // 2,
    ]
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "preannotate", "--project", str(project)],
            env=os.environ | stack.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    summary = boxlift(stack, "preannotate", "--project", str(project))
    assert summary["failed"] == 0
    assert summary["done"] + summary["already"] == len(tasks)
    assert versions(studio, project) == {task: [version] for task in tasks}
    boxes = [box for item in studio.predictions(project) for box in item["result"]]
    assert sum(summary["scores"]) == sum(summary["labels"].values()) == len(boxes), "of all runs together"


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
def test_who_annotates_while_older_predictions_go_keeps_theirs(
    stack: Stack, studio: StudioApi, version: str, request: pytest.FixtureRequest
) -> None:
    project = studio.create_project("overnight", label_config())
    tasks = studio.import_tasks(project, [{"image": f"http://127.0.0.1:1/{number}.jpg"} for number in range(3)])
    worked_on, *others = tasks
    for task in tasks:
        imported(studio, project, task, OLD)
        imported(studio, project, task, version)
    client = Studio(stack.studio.url, stack.studio.login.token)
    request.addfinalizer(client.close)
    before = list(list_tasks(client, project))
    [parent] = [item for item in studio.predictions(project, OLD) if item["task"] == worked_on]
    body = {"result": [], "parent_prediction": parent["id"], "lead_time": 2.0}
    studio.call("POST", f"/api/tasks/{worked_on}/annotations/", json=body)
    assert remove_older(client, project, version, before) == len(others)
    assert versions(studio, project) == {worked_on: [OLD, version]} | {task: [version] for task in others}
    [annotation] = studio.call("GET", f"/api/tasks/{worked_on}/annotations/")
    assert annotation["parent_prediction"] == parent["id"]


def test_a_folder_becomes_an_import_with_predictions(
    stack: Stack, studio: StudioApi, version: str, local_files: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.xml"
    config.write_text(label_config())
    out = tmp_path / "predictions.json"
    environment = {"REDIS_URL": "", "LABEL_STUDIO_URL": "", "LABEL_STUDIO_API_KEY": ""}  # nothing but this machine
    summary = boxlift(
        stack,
        *("preannotate", str(FOLDER), "--config", str(config), "--out", str(out)),
        *("--network", "efficientnet_lite0"),
        **environment,
    )
    assert (summary["done"], summary["failed"], summary["version"]) == (len(FILES), 0, version)
    project = studio.create_project("import", label_config())
    answer = studio.call(
        "POST",
        f"/api/projects/{project}/import",
        params={"return_task_ids": "true"},
        json=json.loads(out.read_text()),
    )
    assert (answer["task_count"], answer["prediction_count"]) == (len(FILES), len(FILES))
    stored = studio.predictions(project)
    assert {item["model_version"] for item in stored} == {version}
    labels = Counter(
        label for item in stored for box in item["result"] for label in box["value"]["rectanglelabels"]
    )
    assert labels == summary["labels"]
    # The same photos, as a project: the same boxes.
    other = studio.create_project("the same", label_config())
    again = studio.upload(other, FILES)
    boxlift(stack, "preannotate", "--project", str(other))
    uploaded = {item["task"]: item["result"][0]["value"] for item in studio.predictions(other)}
    assert [item["result"][0]["value"] for item in sorted(stored, key=lambda item: item["task"])] == [
        uploaded[task] for task in again
    ]
