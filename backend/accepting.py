"""Confident predictions into annotations: only ever by a command, only where nobody has worked."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backend.data_manager import Api
from backend.drafts import worked_on
from worker.errors import StudioError

log = logging.getLogger("boxlift.accept")


@dataclass(frozen=True)
class Outcome:
    """What became of a project's predictions."""

    accepted: int
    """Annotations made; with `write` off, those that would be made."""
    untouched: int
    """Confident predictions of tasks that somebody has annotated, skipped or begun."""
    doubtful: int
    """Predictions under the score, or without boxes."""


def accept(studio: Api, project: int, version: str, score: float, *, write: bool) -> Outcome:
    """Make annotations of a version's predictions that score at least `score`. Raises StudioError.

    A task that has an annotation (skipped ones included) or anybody's draft is never touched. The annotations
    name their prediction, and belong to the token's user.
    """
    accepted = untouched = doubtful = 0
    for prediction in _predictions(studio, project, version):
        task = int(prediction["task"])
        if not prediction.get("result") or (prediction.get("score") or 0.0) < score:
            doubtful += 1
        elif worked_on(studio, project, task):
            untouched += 1
        else:
            accepted += 1
            if write:
                _annotate(studio, task, prediction)
    return Outcome(accepted, untouched, doubtful)


def _predictions(studio: Api, project: int, version: str) -> Iterator[Mapping[str, Any]]:
    """The latest prediction of this version of each task."""
    found = studio.request("GET", f"api/predictions?project={project}", f"predictions of project {project}")
    latest = {item["task"]: item for item in sorted(found, key=lambda item: item["id"])}
    return (item for item in latest.values() if item.get("model_version") == version)


def _annotate(studio: Api, task: int, prediction: Mapping[str, Any]) -> None:
    body = {
        "result": [item | {"origin": "prediction"} for item in prediction["result"]],
        "parent_prediction": prediction["id"],
        "lead_time": 0,
    }
    try:
        studio.request("POST", f"api/tasks/{task}/annotations/", f"an annotation for task {task}", body)
    except StudioError as error:
        raise StudioError(f"{error}. What was accepted before stays", error.status) from None
