"""Labels that the network has never heard of, in a real Label Studio: taught by corrections, then predicted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.labelling.imagenet import taxonomy

from .project import NewProject
from .test_integration import boxlift, until
from .test_tuning import start_training, tuned

KINDS = {"Zorb": "dog", "Quux": "bird"}
CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="Zorb"/><Label value="Quux"/></RectangleLabels>
</View>"""
TAUGHT, ASKED = 10, 4


def samples(shared: Path, kind: str, count: int) -> list[dict[str, Any]]:
    """Photos of a kind of thing, of as many classes as there are, and their boxes."""
    table = taxonomy()
    (above,) = [wnid for wnid in table.meanings[kind] if len(table.ancestors(wnid)) > 9][:1]
    found: dict[str, dict[str, Any]] = {}
    for item in map(json.loads, (shared / "data" / "ilsvrc" / "boxes.jsonl").read_text().splitlines()):
        if above in table.ancestors(item["wnid"]):
            found.setdefault(item["wnid"], item | {"path": shared / "data" / "ilsvrc" / item["file"]})
    return list(found.values())[:count]


def annotate(studio: StudioApi, task: int, label: str, boxes: Sequence[Sequence[float]]) -> None:
    """Submit what a person would have drawn from nothing."""
    result = [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "value": {
                "x": 100 * x0,
                "y": 100 * y0,
                "width": 100 * (x1 - x0),
                "height": 100 * (y1 - y0),
                "rotation": 0,
                "rectanglelabels": [label],
            },
        }
        for x0, y0, x1, y1 in boxes
    ]
    studio.call("POST", f"/api/tasks/{task}/annotations/", json={"result": result, "lead_time": 5.0})


def test_labels_without_a_class_are_predicted_after_some_photos_were_labelled(
    new_project: NewProject, studio: StudioApi, stack: Stack, shared: Path
) -> None:
    project = new_project(CONFIG, title="own labels")
    chosen = [(label, item) for label, kind in KINDS.items() for item in samples(shared, kind, TAUGHT + ASKED)]
    assert len(chosen) == len(KINDS) * (TAUGHT + ASKED)
    tasks = studio.upload(project.id, [item["path"] for _, item in chosen])
    labels = {task: label for task, (label, _) in zip(tasks, chosen, strict=True)}
    numbers = [place % (TAUGHT + ASKED) for place in range(len(tasks))]
    taught = [task for task, number in zip(tasks, numbers, strict=True) if number < TAUGHT]
    asked = [task for task in tasks if task not in taught]
    project.retrieve(asked[:2])
    assert not project.predictions(), "no class reaches these labels yet"

    for task, (label, item) in zip(tasks, chosen, strict=True):
        if task in taught:
            annotate(studio, task, label, item["boxes"])
    start_training(studio, project.id)
    state = tuned(stack, project)
    assert state["state"] == "done", state
    version = state["version"]
    assert version not in ("", project.version), state

    known = boxlift(stack, "labels", "--project", str(project.id))
    assert set(known["learned"]) == set(KINDS)
    assert all(len(classes) == 1 for classes in known["labels"].values()), known

    project.retrieve(asked)
    stored = until(lambda: found if set(found := project.predictions()) >= set(asked) else None)
    called = {}
    for task in asked:
        [prediction] = stored[task]
        assert prediction["model_version"] == version
        [region] = prediction["result"]
        [called[task]] = region["value"]["rectanglelabels"]
        assert 0 < prediction["score"] <= 1
    right = [task for task in asked if called[task] == labels[task]]
    assert len(right) >= len(asked) - 1, (called, labels)
    assert set(called.values()) == set(KINDS)
