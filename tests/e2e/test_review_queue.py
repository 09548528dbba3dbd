"""Doubtful tasks first, without anybody setting anything up; and whoever has set something up keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from backend.demo.photos import label_config
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.review.queue import TAB, TITLE

from .test_integration import boxlift

UNIFORM = "Uniform sampling"


def tabs(studio: StudioApi, project: int) -> list[dict[str, Any]]:
    """The Data Manager's tabs."""
    return list(studio.call("GET", "/api/dm/views", params={"project": project}))


def connect(stack: Stack, project: int, *options: str) -> list[str]:
    """What `boxlift connect` says it has done."""
    return list(boxlift(stack, "connect", "--project", str(project), "--url", stack.backend_url, *options)["done"])


def test_a_tab_beside_the_one_with_all_tasks_once_and_repaired(stack: Stack, studio: StudioApi) -> None:
    project = studio.create_project("tabs", label_config())
    assert any(TITLE in line for line in connect(stack, project))
    made = tabs(studio, project)
    assert [tab["data"]["title"] for tab in made] == ["Default", TITLE]
    assert not any(TITLE in line for line in connect(stack, project))
    changed = made[1]["data"] | {"ordering": ["-tasks:id"], "hiddenColumns": {"explore": ["tasks:id"]}}
    studio.call("PATCH", f"/api/dm/views/{made[1]['id']}/", json={"project": project, "data": changed})
    assert any("repaired" in line for line in connect(stack, project))
    default, ours = tabs(studio, project)
    assert default == made[0]
    assert ours["id"] == made[1]["id"]
    assert {name: ours["data"][name] for name in TAB} == TAB
    assert ours["data"]["hiddenColumns"] == {"explore": ["tasks:id"]}


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        ("Sequential sampling", [], "Uncertainty sampling"),
        ("Sequential sampling", ["--no-uncertainty"], "Sequential sampling"),
        (UNIFORM, [], UNIFORM),
        (UNIFORM, ["--uncertainty"], "Uncertainty sampling"),
    ],
)
def test_the_label_streams_order(
    stack: Stack, studio: StudioApi, before: str, options: list[str], after: str
) -> None:
    project = studio.create_project("order", label_config(), sampling=before)
    connect(stack, project, *options)
    assert studio.call("GET", f"/api/projects/{project}/")["sampling"] == after


def test_people_get_the_least_sure_task_that_nobody_has_done(stack: Stack, studio: StudioApi, version: str) -> None:
    project = studio.create_project("stream", label_config())
    connect(stack, project)
    tasks = studio.import_tasks(project, [{"image": f"http://127.0.0.1:1/{number}.jpg"} for number in range(4)])
    scores = dict(zip(tasks, (0.9, 0.2, 0.6, 0.4), strict=True))
    body = [
        {"task": task, "result": [], "score": score, "model_version": version} for task, score in scores.items()
    ]
    studio.call("POST", f"/api/projects/{project}/import/predictions", json=body)
    [_, tab] = tabs(studio, project)
    seen = []
    for left in range(4, 0, -1):
        listed = studio.call("GET", "/api/tasks/", params={"view": tab["id"]})["tasks"]
        assert len(listed) == left
        task = studio.next_task(project)["id"]
        assert task == listed[0]["id"]
        seen.append(scores[task])
        skipped = {"result": [], "was_cancelled": left % 2 == 0}
        studio.call("POST", f"/api/tasks/{task}/annotations/", json=skipped)
    assert seen == sorted(scores.values())
