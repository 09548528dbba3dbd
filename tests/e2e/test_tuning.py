"""From people's corrections in a real Label Studio to better boxes of that project, and of no other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.demo.photos import label_config, photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.review.matching import iou
from worker.contract import Box

from .project import NewProject, Project
from .test_integration import backend, boxlift, until

TUNING_SECONDS = 1000.0
"""Patience for a tuning, which has the lowest priority; a limit for a run that hangs, not a claim about speed."""
LOOSE = 1.5
"""How much wider and taller the people of this project draw than the defaults do."""


def box_of(region: Mapping[str, Any]) -> Box:
    x, y, width, height = (float(region["value"][name]) / 100 for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def loosened(box: Box) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = (LOOSE - 1) * (x1 - x0) / 2, (LOOSE - 1) * (y1 - y0) / 2
    return max(0.0, x0 - dx), max(0.0, y0 - dy), min(1.0, x1 + dx), min(1.0, y1 + dy)


def annotate(studio: StudioApi, task: int, prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Submit the prediction's region as these people would have drawn it."""
    [region] = prediction["result"]
    x0, y0, x1, y1 = (100 * side for side in loosened(box_of(region)))
    value = region["value"] | {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    body = {
        "result": [region | {"value": value, "origin": "prediction-changed"}],
        "lead_time": 4.2,
        "parent_prediction": prediction["id"],
    }
    return dict(studio.call("POST", f"/api/tasks/{task}/annotations/", json=body))


def start_training(studio: StudioApi, project: int) -> None:
    """Press the button: what the page sends."""
    [connection] = studio.call("GET", "/api/ml/", params={"project": project})
    studio.call("POST", f"/api/ml/{connection['id']}/train")


def tuned(stack: Stack, project: Project) -> dict[str, Any]:
    """What `boxlift status` says when the wish of this project is done with."""

    deadline = time.monotonic() + TUNING_SECONDS
    while True:
        state = boxlift(stack, "status")["tunings"].get(str(project.id), {})
        if state.get("state") in ("done", "failed"):
            return dict(state)
        assert time.monotonic() < deadline, f"the tuning did not end: {state}"
        time.sleep(3.0)  # each look is a process of its own


def test_start_training_makes_better_boxes_for_its_project_only(
    new_project: NewProject, studio: StudioApi, stack: Stack
) -> None:
    files = [photo.path for photo in photos()]
    mine, other = new_project(title="mine"), new_project(title="other")
    tasks, others = studio.upload(mine.id, files), studio.upload(other.id, files[:3])
    for project, some in ((mine, tasks), (other, others)):
        project.retrieve()
        project.wait_for(some)
    before = {task: found[0] for task, found in mine.predictions().items()}
    drawn = [task for task in tasks if before[task]["result"]]
    corrected, rest = drawn[:-3], drawn[-3:]
    annotations = {task: annotate(studio, task, before[task]) for task in corrected}

    start_training(studio, mine.id)
    state = tuned(stack, mine)
    assert state["state"] == "done", state
    version = state["version"]
    assert version not in ("", mine.version), state

    mine.retrieve(rest)
    until(lambda: all(any(p["model_version"] == version for p in mine.predictions()[task]) for task in rest))
    for task in rest:
        found = {p["model_version"]: p for p in mine.predictions()[task]}
        assert found[mine.version]["result"] == before[task]["result"], "what was predicted before stays"
        wanted, old = loosened(box_of(before[task]["result"][0])), box_of(before[task]["result"][0])
        assert iou(box_of(found[version]["result"][0]), wanted) > iou(old, wanted)
    assert studio.call("GET", f"/api/projects/{mine.id}/")["model_version"] == version
    for task, made in annotations.items():
        [kept] = studio.call("GET", f"/api/tasks/{task}/annotations/")
        assert (kept["result"], kept["updated_at"]) == (made["result"], made["updated_at"])

    more = studio.upload(other.id, files[3:5])
    other.retrieve(more)
    for task, stored in other.wait_for(more).items():
        assert {p["model_version"] for p in stored} == {other.version}, f"task {task} of another project"
    assert studio.call("GET", f"/api/projects/{other.id}/")["model_version"] == other.version

    again = boxlift(stack, "tune", "--project", str(mine.id), "--dry-run", BOXLIFT_NETWORK="efficientnet_lite0")
    assert (again["computed"], again["version"]) == (0, version), "same corrections, same tuning, cached maps"
    assert tuned(stack, mine) == state, "a dry run is nobody else's business"
    reset = boxlift(stack, "tune", "--project", str(mine.id), "--reset")
    assert (reset["withdrawn"], reset["version"]) == (True, mine.version)


def test_too_few_corrections_change_nothing(new_project: NewProject, studio: StudioApi, stack: Stack) -> None:
    project = new_project()
    tasks = studio.upload(project.id, [photo.path for photo in photos()[:2]])
    project.retrieve()
    annotate(studio, tasks[0], project.wait_for(tasks)[tasks[0]][0])
    told = boxlift(stack, "tune", "--project", str(project.id), BOXLIFT_NETWORK="efficientnet_lite0")
    assert (told["annotated"], told["published"], told["version"]) == (1, False, project.version)
    assert "at least" in " ".join(told["notes"])


def test_every_so_many_annotations_ask_for_a_tuning(studio: StudioApi, stack: Stack, tmp_path: Path) -> None:
    number = studio.create_project("every third", label_config())
    tasks = studio.upload(number, [photo.path for photo in photos()[:3]])
    with backend(stack, tmp_path, BOXLIFT_TUNE_EVERY="3") as url:
        boxlift(stack, "connect", "--project", str(number), "--url", url)
        for task in tasks[:2]:
            studio.call("POST", f"/api/tasks/{task}/annotations/", json={"result": [], "lead_time": 1.0})
        assert str(number) not in boxlift(stack, "status")["tunings"]
        studio.call("POST", f"/api/tasks/{tasks[2]}/annotations/", json={"result": [], "lead_time": 1.0})
        state = tuned(stack, Project(stack, studio, number, ""))
    assert (state["state"], state["version"]) == ("done", "")
    assert "annotate some tasks first" in state["message"]
