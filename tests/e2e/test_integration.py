"""Whatever a project looks like, connecting works: configs, connection, events, smart tools, drafts, acceptance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.cli import main
from backend.demo.photos import label_config, photos
from backend.demo.processes import free_port
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi

from .project import SECONDS, NewProject

PHOTOS = {photo.file: photo for photo in photos()}
CAT, KOALA, PANDA = "cat.jpg", "koala.jpg", "panda.jpg"
LABELS = '<Label value="Cat"/><Label value="Panda" predicted_values="giant panda"/><Label value="Koala"/>'


def run(stack: Stack, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the stack's settings."""
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", *arguments],
        env=os.environ | stack.environment() | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


HERE = ("connect", "labels")
"""Commands that only ask Label Studio, often: without a process, and imports, of their own they take a tenth."""


def boxlift(stack: Stack, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run a command that must work; what it printed as JSON."""
    if arguments[0] in HERE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the SDK's are no errors to a user either
            called = CliRunner().invoke(main, [*arguments, "--json"], env=stack.environment() | environment)
        assert called.exit_code == 0, called.output
        return dict(json.loads(called.stdout))
    done = run(stack, *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def until(found: Callable[[], Any]) -> Any:
    """Wait for something to be there."""
    deadline = time.monotonic() + SECONDS
    while not (there := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.5)
    return there


@contextmanager
def backend(stack: Stack, folder: Path, **settings: str) -> Iterator[str]:
    """Another backend with settings of its own on the same queue: its address."""
    port = free_port()
    env = os.environ | stack.environment() | {"BOXLIFT_PORT": str(port)} | settings
    with (folder / "backend.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "backend.cli", "serve"], env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            assert process.poll() is None, (folder / "backend.log").read_text()
            return False

    try:
        until(answers)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def config(image: str = 'value="$image"', control: str = "") -> str:
    control = control or f'<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels>'
    return f'<View><Image name="image" {image}/>{control}</View>'


def test_connect_makes_repairs_and_replaces(stack: Stack, studio: StudioApi, version: str) -> None:
    project = studio.create_project("connect", label_config())
    [task] = studio.upload(project, [PHOTOS[PANDA].path])
    old = {"task": task, "result": [], "score": 0.1, "model_version": "boxlift-vgg16-000000000000"}
    foreign = old | {"model_version": "somebody else's"}
    studio.call("POST", f"/api/projects/{project}/import/predictions", json=[old, foreign])

    made = boxlift(stack, "connect", "--project", str(project), "--url", stack.backend_url, "--uncertainty")
    assert made["version"] == version
    assert made["warnings"] == []
    [connection] = studio.call("GET", "/api/ml/", params={"project": project})
    assert (connection["title"], connection["model_version"]) == (version, version)
    settings = studio.call("GET", f"/api/projects/{project}/")
    assert (settings["model_version"], settings["sampling"]) == (version, "Uncertainty sampling")
    assert len(studio.predictions(project)) == 2

    # Somebody breaks it: another title, no webhook, a second connection to the same address.
    body = {"project": project, "url": stack.backend_url, "title": "mine"}
    studio.call("PATCH", f"/api/ml/{connection['id']}", json=body)
    studio.call("POST", "/api/ml/", json=body)
    for hook in studio.call("GET", "/api/webhooks/", params={"project": project}):
        studio.call("DELETE", f"/api/webhooks/{hook['id']}/")

    arguments = ("connect", "--project", str(project), "--url", stack.backend_url, "--old", "replace")
    repaired = boxlift(stack, *arguments, BOXLIFT_WEBHOOK_SECRET="s3cret")
    assert repaired["backend"] == connection["id"]
    [connection] = studio.call("GET", "/api/ml/", params={"project": project})
    assert connection["title"] == version
    [hook] = studio.call("GET", "/api/webhooks/", params={"project": project})
    assert hook["headers"] == {"X-Boxlift-Secret": "s3cret"}
    assert [item["model_version"] for item in studio.predictions(project)] == ["somebody else's"]
    assert boxlift(stack, *arguments)["warnings"] == []


def test_scores_are_what_the_data_manager_sorts_by(stack: Stack, studio: StudioApi, version: str) -> None:
    project = studio.create_project("scores", label_config())
    boxlift(stack, "connect", "--project", str(project), "--url", stack.backend_url)
    tasks = studio.upload(project, [PHOTOS[name].path for name in (CAT, KOALA, PANDA)])
    studio.retrieve_predictions(project)
    until(lambda: len(studio.predictions(project, version)) == len(tasks))
    query = {"project": project, "fields": "all", "query": json.dumps({"ordering": ["tasks:predictions_score"]})}
    listed = studio.call("GET", "/api/tasks/", params=query)["tasks"]
    scores = [task["predictions_score"] for task in listed]
    assert len(scores) == len(tasks)
    assert all(score > 0 for score in scores)
    assert scores == sorted(scores)


def test_without_a_backend_connect_says_what_to_do(stack: Stack, studio: StudioApi) -> None:
    project = studio.create_project("nobody there", label_config())
    done = run(stack, "connect", "--project", str(project), "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "boxlift serve" in done.stderr
    assert "Traceback" not in done.stderr
    assert studio.call("GET", "/api/ml/", params={"project": project}) == []


@pytest.mark.parametrize("kind", ["rectangle and labels", "pages", "two images", "two controls"])
def test_configs(kind: str, new_project: NewProject, studio: StudioApi, image_server: str) -> None:
    urls = [f"{image_server}/{name}" for name in (PANDA, KOALA)]
    pair = '<Rectangle name="box" toName="image"/><Labels name="lab" toName="image">' + LABELS + "</Labels>"
    two = (
        '<View><Image name="a" value="$one"/><Image name="b" value="$two"/>'
        f'<RectangleLabels name="la" toName="a">{LABELS}</RectangleLabels>'
        f'<RectangleLabels name="lb" toName="b">{LABELS}</RectangleLabels></View>'
    )
    controls = (
        '<RectangleLabels name="bears" toName="image"><Label value="Panda" predicted_values="giant panda"/>'
        '</RectangleLabels><RectangleLabels name="others" toName="image"><Label value="Cat"/></RectangleLabels>'
    )
    xml, data = {
        "rectangle and labels": (config(control=pair), {"image": urls[0]}),
        "pages": (config(image='valueList="$images"'), {"images": urls}),
        "two images": (two, {"one": urls[0], "two": urls[1]}),
        "two controls": (config(control=controls), {"image": urls[0]}),
    }[kind]
    project = new_project(xml)
    tasks = studio.import_tasks(project.id, [data])
    project.retrieve()
    [[prediction]] = project.wait_for(tasks).values()
    assert LabelInterface(xml).validate_prediction(prediction, return_errors=True) == []
    found = [
        (item["from_name"], item["to_name"], item.get("item_index"), (item["value"].get("labels") or [""])[0])
        if item["type"] == "labels"
        else (item["from_name"], item["to_name"], item.get("item_index"), *item["value"].get("rectanglelabels", []))
        for item in prediction["result"]
    ]
    assert (
        found
        == {
            "rectangle and labels": [("box", "image", None), ("lab", "image", None, "Panda")],
            "pages": [("label", "image", 0, "Panda"), ("label", "image", 1, "Koala")],
            "two images": [("la", "a", None, "Panda"), ("lb", "b", None, "Koala")],
            "two controls": [("bears", "image", None, "Panda")],
        }[kind]
    )


def test_a_config_without_boxes_connects_and_a_changed_one_counts_at_once(
    new_project: NewProject, studio: StudioApi
) -> None:
    choices = '<Choices name="c" toName="image"><Choice value="Cat"/></Choices>'
    project = new_project(config(control=choices))
    tasks = studio.upload(project.id, [PHOTOS[PANDA].path])
    project.retrieve()
    assert project.predictions() == {}
    studio.call("PATCH", f"/api/projects/{project.id}/", json={"label_config": config()})
    project.retrieve()
    [[prediction]] = project.wait_for(tasks).values()
    assert prediction["result"][0]["value"]["rectanglelabels"] == ["Panda"]


@pytest.mark.parametrize(
    ("attribute", "most"),
    [('model_score_threshold="0.999"', 0), ('model_max_boxes="3"', 3), ('model_skip="true"', None)],
)
def test_attributes_of_a_tag(attribute: str, most: int | None, new_project: NewProject, studio: StudioApi) -> None:
    """Label Studio takes configs with attributes that it does not know itself, and what they ask for is done."""
    control = f'<RectangleLabels name="label" toName="image" {attribute}>{LABELS}</RectangleLabels>'
    project = new_project(config(control=control))
    assert attribute in studio.call("GET", f"/api/projects/{project.id}/")["label_config"]
    tasks = studio.upload(project.id, [PHOTOS[PANDA].path])
    project.retrieve()
    if most is None:
        assert project.predictions() == {}
        return
    [[prediction]] = project.wait_for(tasks).values()
    assert min(most, 1) <= len(prediction["result"]) <= most
    assert LabelInterface(config(control=control)).validate_prediction(prediction, return_errors=True) == []


SMART = (
    '<View><Image name="image" value="$image"/>'
    '<KeyPointLabels name="tag" toName="image" smart="true"><Label value="Panda"/></KeyPointLabels>'
    '<RectangleLabels name="label" toName="image" smart="true">'
    '<Label value="Panda" predicted_values="giant panda"/></RectangleLabels></View>'
)


def test_smart_tools(stack: Stack, studio: StudioApi) -> None:
    project = studio.create_project("smart", SMART)
    report = boxlift(stack, "connect", "--project", str(project), "--url", stack.backend_url, "--interactive")
    [task] = studio.upload(project, [PHOTOS[PANDA].path])
    studio.retrieve_predictions(project)
    [prediction] = until(lambda: studio.predictions(project))
    box = prediction["result"][0]["value"]
    middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}

    def ask(kind: str, from_name: str, value: dict[str, Any]) -> dict[str, Any]:
        item = {"type": kind, "from_name": from_name, "to_name": "image", "value": value | {kind: ["Panda"]}}
        body = {"task": task, "context": {"result": [item]}}
        data = studio.call("POST", f"/api/ml/{report['backend']}/interactive-annotating", json=body)["data"]
        assert LabelInterface(SMART).validate_prediction(data, return_errors=True) == []
        return dict(data)

    click = {**middle, "width": 0.4}
    [item] = until(lambda: ask("keypointlabels", "tag", click)["result"])
    found = item["value"]
    assert found["rectanglelabels"] == ["Panda"]
    assert found["x"] <= middle["x"] <= found["x"] + found["width"]
    assert found["y"] <= middle["y"] <= found["y"] + found["height"]
    rough = {"x": 5, "y": 5, "width": 90, "height": 90, "rotation": 0}
    [item] = until(lambda: ask("rectanglelabels", "label", rough)["result"])
    assert 0 < item["value"]["width"] * item["value"]["height"] < 90 * 90
    # What was asked for in passing is nobody's prediction.
    assert len(studio.predictions(project)) == 1


def test_new_tasks_are_predicted_by_themselves_behind_auth(
    stack: Stack, studio: StudioApi, version: str, tmp_path: Path
) -> None:
    project = studio.create_project("preannotate", label_config())
    secrets = {"BOXLIFT_BASIC_AUTH": "studio:pa:ss", "BOXLIFT_WEBHOOK_SECRET": "s3cret"}
    with backend(stack, tmp_path, BOXLIFT_PREANNOTATE="yes", **secrets) as url:
        assert httpx.get(f"{url}/versions", trust_env=False).status_code == 401
        report = boxlift(stack, "connect", "--project", str(project), "--url", url, **secrets)
        assert report["warnings"] == []
        studio.upload(project, [PHOTOS[PANDA].path])
        [prediction] = until(lambda: studio.predictions(project, version))
        assert prediction["result"]


def test_drafts_beside_predictions_and_acceptance_never_over_human_work(
    stack: Stack, studio: StudioApi, version: str, tmp_path: Path
) -> None:
    project = studio.create_project("drafts", label_config())
    with backend(stack, tmp_path, BOXLIFT_WRITE="drafts") as url:
        boxlift(stack, "connect", "--project", str(project), "--url", url)
        [task] = studio.upload(project, [PHOTOS[PANDA].path])
        [prediction] = until(lambda: studio.task(task)["predictions"])
        [draft] = until(lambda: studio.call("GET", f"/api/tasks/{task}/drafts", params=None))
    assert draft["result"][0]["value"] == prediction["result"][0]["value"]

    # That backend is gone: its connection would be the one that Label Studio asks.
    boxlift(stack, "connect", "--project", str(project), "--url", stack.backend_url)
    assert studio.call("GET", f"/api/projects/{project}/")["model_version"] == version
    [other] = studio.upload(project, [PHOTOS[KOALA].path])
    until(lambda: studio.task(other)["predictions"])
    arguments = ("accept", "--project", str(project), "--score", "0", "--version", version)
    would = boxlift(stack, *arguments)
    assert (would["accepted"], would["untouched"], would["written"]) == (1, 1, False)
    assert studio.task(other)["annotations"] == []
    assert boxlift(stack, *arguments, "--yes")["accepted"] == 1
    [annotation] = studio.task(other)["annotations"]
    assert annotation["result"][0]["origin"] == "prediction"
    assert studio.task(task)["annotations"] == []
    assert boxlift(stack, *arguments, "--yes") == {
        "accepted": 0, "untouched": 2, "doubtful": 0, "version": version, "written": True
    }  # fmt: skip
