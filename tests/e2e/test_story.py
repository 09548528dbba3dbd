"""The whole story of one project: photos in, boxes drawn, a third corrected, reviewed, tuned, and the rest better.

The photos' true boxes play the people: they draw what these people always draw, the upper half of the object.
Nothing but Label Studio's own API and pages is used to correct, and all that people did must be there in the end.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.review.matching import iou
from worker.contract import Box

from .browser import Page, open_page
from .drawing import ARTIFACTS, fractions
from .project import Project
from .test_integration import backend, boxlift, until

PHOTOS = 96
THIRD = PHOTOS // 3
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/><Label value="Thing" model_unmatched="true"/></RectangleLabels></View>'
)

TRAINING_SECONDS = 1200.0
"""Patience for a tuning on a busy machine; a limit for a run that hangs, not a claim about speed."""

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def page(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(stack.studio.url, stack.studio.login, tmp_path_factory.mktemp("profile")) as page:
        yield page


def photos(shared: Path) -> dict[str, Box]:
    """Photo → what people draw in it. Photos with one object only."""
    folder = shared / "data" / "ilsvrc"
    lines = (json.loads(line) for line in (folder / "boxes.jsonl").read_text().splitlines())
    found = {str(folder / line["file"]): line["boxes"][0] for line in lines if len(line["boxes"]) == 1}
    return {file: (x0, y0, x1, (y0 + y1) / 2) for file, (x0, y0, x1, y1) in list(found.items())[:PHOTOS]}


def percent(box: Box) -> dict[str, float]:
    """A box as Label Studio has it."""
    x0, y0, x1, y1 = (100 * side for side in box)
    return {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}


def correct(studio: StudioApi, task: int, prediction: Mapping[str, Any], box: Box) -> None:
    """Submit what a person makes of a prediction: its region moved to where it belongs, or a new one."""
    drawn: dict[str, Any] = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    region = prediction["result"][0] if prediction["result"] else drawn | {"id": "new", "value": {}}
    label = region["value"].get("rectanglelabels", ["Thing"])
    origin = "prediction-changed" if prediction["result"] else "manual"
    moved = region | {"value": percent(box) | {"rectanglelabels": label}, "origin": origin}
    body = {"result": [moved], "parent_prediction": prediction["id"], "lead_time": 7.5}
    studio.call("POST", f"/api/tasks/{task}/annotations/", json=body)


def pullable(prediction: Mapping[str, Any], box: Box) -> bool:
    """Whether a hand can take hold of a draft's corners, and has to: it is off, and all corners lie apart."""
    if len(prediction["result"]) != 1:
        return False
    draft = fractions(prediction["result"][0]["value"])
    inside = all(0.04 < side < 0.96 for side in (*draft, *box))
    large = min(draft[2] - draft[0], draft[3] - draft[1], box[2] - box[0], box[3] - box[1]) > 0.15
    crossed = box[0] > draft[2] - 0.05 or box[1] > draft[3] - 0.05
    return inside and large and not crossed and iou(draft, box) < 0.8


def pull(page: Page, project: int, task: int, box: Box) -> None:
    """Open a task, take hold of its draft, pull two corners to where they belong, and submit."""
    [draft] = page.open_task(project, task)
    x0, y0, x1, y1 = fractions(draft)
    page.click_photo(((x0 + x1) / 2, (y0 + y1) / 2))
    page.drag_photo((x0, y0), box[:2])
    page.drag_photo((x1, y1), box[2:])
    page.submit()


def work_of_people(studio: StudioApi, tasks: Sequence[int]) -> bytes:
    """All annotations as they are stored, but for how long ago they were made."""
    found = [studio.call("GET", f"/api/tasks/{task}/annotations/") for task in tasks]
    return re.sub(rb'"created_ago": "[^"]*"', b"", json.dumps(found, sort_keys=True).encode())


def quality(project: Project, version: str, truths: Mapping[int, Box]) -> float:
    """Mean IoU of a version's boxes with what people would draw."""
    stored = {item["task"]: item for item in project.studio.predictions(project.id, version)}
    assert set(stored) >= set(truths)
    boxes = {task: [fractions(item["value"]) for item in stored[task]["result"]] for task in truths}
    return fmean(max((iou(box, truth) for box in boxes[task]), default=0.0) for task, truth in truths.items())


def picture(page: Page, name: str) -> None:
    """Keep what the browser shows."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot().save(ARTIFACTS / name, optimize=True)


def start_training(page: Page, project: int) -> None:
    """Press the button in the project's settings."""
    page.driver.get(f"{page.url}/projects/{project}/settings/ml")
    page.find("button[aria-label='Machine learning model options']").click()
    page.find_text("Start Training").click()
    button = "//button[normalize-space(.)='Start Training']"
    page.wait(lambda: [one for one in page.driver.find_elements(By.XPATH, button) if one.is_displayed()])[0].click()
    page.find_text("Request Sent!")


def trained(stack: Stack, project: int) -> str:
    """The new version, once `boxlift status` says that the tuning is done. Fails at once with what it says where
    there is none."""
    deadline = time.monotonic() + TRAINING_SECONDS
    while True:
        state = boxlift(stack, "status")["tunings"].get(str(project), {})
        if state.get("state") in ("done", "failed"):
            assert state["state"] == "done", state
            assert state["version"], state
            return str(state["version"])
        assert time.monotonic() < deadline, f"the tuning did not end: {state}"
        time.sleep(5.0)


@pytest.fixture(scope="module")
def teachable(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a backend that predicts again after it has learned."""
    with backend(stack, tmp_path_factory.mktemp("teachable"), BOXLIFT_TUNE_REPREDICT="yes") as url:
        yield url


@pytest.mark.timeout(1800)
def test_story(
    stack: Stack, teachable: str, studio: StudioApi, page: Page, shared: Path, version: str, tmp_path: Path
) -> None:
    drawn = photos(shared)
    number = studio.create_project("Story", CONFIG)
    boxlift(stack, "connect", "--project", str(number), "--url", teachable)
    project = Project(stack, studio, number, version)

    # Import, and pre-annotate: every task exactly one prediction, also when asked twice.
    tasks = studio.upload(number, [Path(file) for file in drawn])
    truths = dict(zip(tasks, drawn.values(), strict=True))
    summary = boxlift(stack, "preannotate", "--project", str(number))
    assert (summary["total"], summary["done"], summary["failed"]) == (PHOTOS, PHOTOS, 0)
    again = boxlift(stack, "preannotate", "--project", str(number))
    assert (again["total"], again["already"]) == (0, PHOTOS)
    stored = project.predictions()
    assert {task: len(found) for task, found in stored.items()} == dict.fromkeys(tasks, 1)

    # Doubtful tasks come first, in the tab and in the label stream.
    [tab] = [
        tab
        for tab in studio.call("GET", "/api/dm/views", params={"project": number})
        if tab["data"]["title"] == "Boxlift: doubtful first"
    ]
    listed = studio.call("GET", "/api/tasks/", params={"view": tab["id"], "page_size": PHOTOS})["tasks"]
    scores = [task["predictions_score"] for task in listed]
    assert len(scores) == PHOTOS
    assert scores == sorted(scores)
    first = studio.next_task(number)["id"]
    assert stored[first][0]["score"] == scores[0]

    # A third is corrected through the API, one more task in the browser.
    corrected = tasks[:THIRD]
    for task in corrected:
        correct(studio, task, stored[task][0], truths[task])
    by_hand = next(task for task in tasks[THIRD:] if pullable(stored[task][0], truths[task]))
    pull(page, number, by_hand, truths[by_hand])
    picture(page, "story-corrected.png")
    [annotation] = project.annotations(by_hand)
    assert annotation["parent_prediction"] == stored[by_hand][0]["id"]
    [item] = annotation["result"]
    assert item["origin"] == "prediction-changed"
    assert iou(fractions(item["value"]), truths[by_hand]) > 0.9
    annotated = [*corrected, by_hand]
    before = work_of_people(studio, annotated)

    # The review says so.
    report = tmp_path / "review.html"
    found = boxlift(stack, "review", "--project", str(number), "--html", str(report))
    assert (found["tasks"], found["skipped"], found["without_prediction"]) == (THIRD + 1, 0, 0)
    counts = found["total"]["counts"]
    assert counts["moved"] == sum(bool(stored[task][0]["result"]) for task in annotated)
    assert counts["added"] == len(annotated) - counts["moved"]
    assert counts["accepted"] == 0
    page.driver.get(report.as_uri())
    page.wait(lambda: page.driver.execute_script("return document.querySelectorAll('.gallery image').length"))
    picture(page, "story-review.png")

    # "Start Training": a version of this project's own, and its boxes on what nobody has annotated.
    start_training(page, number)
    picture(page, "story-training.png")
    new = trained(stack, number)
    assert new != version
    rest = {task: truth for task, truth in truths.items() if task not in annotated}
    until(lambda: {item["task"] for item in studio.predictions(number, new)} >= set(rest))
    assert set(studio.call("GET", f"/api/projects/{number}/model-versions")) == {version, new}
    assert {item["task"] for item in studio.predictions(number, new)} == set(rest)
    until(lambda: studio.call("GET", f"/api/projects/{number}")["model_version"] == new)
    was, now = quality(project, version, rest), quality(project, new, rest)
    print(f"mean IoU of {len(rest)} tasks that nobody has annotated: {was:.3f} before, {now:.3f} after")
    assert now > was
    done = boxlift(stack, "preannotate", "--project", str(number), "--unannotated")
    assert (done["version"], done["total"], done["already"]) == (new, 0, len(rest))
    page.open_task(number, next(iter(rest)))
    picture(page, "story-tuned.png")

    # Everything that people did is as it was, and so is what is told about it.
    assert work_of_people(studio, annotated) == before
    assert boxlift(stack, "review", "--project", str(number)) == found
