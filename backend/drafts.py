"""Drafts: editable boxes for the token's user, beside the predictions. Never where somebody has worked already."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from worker.errors import StudioError

log = logging.getLogger("boxlift.drafts")

DRAFTS = "drafts"
"""Value of the setting `write`."""


class Api(Protocol):
    """What writing drafts, and accepting, need of `backend.studio.Studio`. May raise StudioError."""

    def request(self, method: str, path: str, doing: str, body: object = None) -> Any: ...


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
    item = {"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": task}
    asked = {
        "project": project,
        "include": "id,total_annotations,cancelled_annotations",
        "query": json.dumps({"filters": {"conjunction": "and", "items": [item]}}),
    }
    found = studio.request("GET", f"api/tasks?{urlencode(asked)}", f"annotations of task {task}")["tasks"]
    if any(one["total_annotations"] or one["cancelled_annotations"] for one in found) or not found:
        return True
    return bool(studio.request("GET", f"api/tasks/{task}/drafts", f"drafts of task {task}"))
