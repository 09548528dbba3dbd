"""Drafts: editable boxes for the token's user, beside the predictions. Never where somebody has worked already."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from backend.data_manager import Api, condition, query
from worker.errors import StudioError

log = logging.getLogger("boxlift.drafts")

DRAFTS = "drafts"
"""Value of the setting `write`."""


def write_drafts(studio: Api, project: int, predictions: Iterable[Mapping[str, Any]]) -> int:
    """Make a draft of each prediction ({task, result, …}) that has boxes. Returns how many were made. Never raises.

    A task that has an annotation (skipped ones included) or anybody's draft is left alone.
    """
    made = 0
    for prediction in predictions:
        task = prediction["task"]
        try:
            if prediction["result"] and not worked_on(studio, project, task):
                body = {"result": prediction["result"], "lead_time": 0}
                studio.request("POST", f"api/tasks/{task}/drafts", f"a draft for task {task}", body)
                made += 1
        except StudioError as error:
            log.warning("no draft: %s", error, extra={"project": project, "task": task})
    if made:
        log.info("%d drafts written", made, extra={"project": project})
    return made


def worked_on(studio: Api, project: int, task: int) -> bool:
    """Whether a task has annotations, skipped ones included, or drafts of any user; or is gone. Raises StudioError.

    The list of a task's annotations does not show skipped ones: only the Data Manager counts them.
    """
    asked = {
        "project": project,
        "include": "id,total_annotations,cancelled_annotations",
        "query": query(condition("id", "equal", task)),
    }
    found = studio.request("GET", f"api/tasks?{urlencode(asked)}", f"annotations of task {task}")["tasks"]
    if any(one["total_annotations"] or one["cancelled_annotations"] for one in found) or not found:
        return True
    return bool(studio.request("GET", f"api/tasks/{task}/drafts", f"drafts of task {task}"))
