"""Webhook events: what Label Studio tells, and what is done about it. Anything unknown is politely let go."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from backend.background import Background
from backend.predictor import Predictor, project_id, task_id
from worker.errors import BoxliftError

log = logging.getLogger(__name__)


_CORRECTED = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED")


class Events:
    """Takes events at once and works on them in the background."""

    def __init__(self, predictor: Predictor, background: Background) -> None:
        self._predictor = predictor
        self._background = background
        self._repredict = predictor.settings.tune_repredict == "yes"

    def take(self, action: object, data: Mapping[str, Any]) -> str:
        """Accept an event. Returns what becomes of it: `accepted`, `busy` or `ignored`."""
        work = None
        if action == "TASKS_CREATED" and self._predictor.settings.preannotate == "yes":
            work = self._tasks_created
        elif action == "TASKS_DELETED":
            work = self._tasks_deleted
        elif action == "PROJECT_UPDATED":
            work = self._project_updated
        elif action == "START_TRAINING":
            work = self._start_training
        elif action in _CORRECTED and self._predictor.settings.tune_every:
            work = self._corrected
        if work is None:
            return "ignored"
        return "accepted" if self._background.later(work, data) else "busy"

    def _tasks_created(self, data: Mapping[str, Any]) -> None:
        """New tasks are predicted; those that came with predictions are left alone."""
        project, tasks = data.get("project"), data.get("tasks")
        number = project_id(project.get("id")) if isinstance(project, Mapping) else None
        if number is None or not isinstance(project, Mapping) or not isinstance(tasks, Sequence):
            return
        fresh = [task for task in tasks if isinstance(task, Mapping) and not task.get("total_predictions")]
        try:
            count = self._predictor.enqueue(number, fresh, project.get("label_config"))
        except BoxliftError as error:
            log.warning("new tasks not enqueued: %s", error, extra={"project": number})
        else:
            log.info("%d new tasks enqueued", count, extra={"project": number})

    def _tasks_deleted(self, data: Mapping[str, Any]) -> None:
        """Tasks that are gone are not looked at any more; their numbers may be given to others."""
        project, tasks = data.get("project"), data.get("tasks")
        number = project_id(project.get("id")) if isinstance(project, Mapping) else None
        if number is None or not isinstance(tasks, Sequence):
            return
        gone = [found for found in map(task_id, tasks) if found is not None]
        try:
            count = self._predictor.forget(number, gone)
        except BoxliftError as error:
            log.warning("deleted tasks stay in the queue: %s", error, extra={"project": number})
        else:
            log.info("%d jobs of deleted tasks cancelled", count, extra={"project": number})

    def _start_training(self, data: Mapping[str, Any]) -> None:
        """The button: learn from the project's corrections."""
        project = data.get("project")
        self._wish(project_id(project.get("id")) if isinstance(project, Mapping) else None)

    def _corrected(self, data: Mapping[str, Any]) -> None:
        """Somebody has annotated: after enough of it, learn from it."""
        project = data.get("project")
        number = project_id(project.get("id")) if isinstance(project, Mapping) else None
        made = data.get("annotation")
        some = max(1, len(made)) if isinstance(made, list) else 1
        try:
            if number and self._predictor.corrected(number, some):
                self._wish(number)
        except BoxliftError as error:
            log.warning("a correction was not counted: %s", error, extra={"project": number})

    def _wish(self, project: int | None) -> None:
        if project is None:
            return
        try:
            new = self._predictor.wish_tuning(project, repredict=self._repredict)
        except BoxliftError as error:
            log.warning("not tuned: %s", error, extra={"project": project})
        else:
            log.info("tuning %s", "wished for" if new else "is wished for already", extra={"project": project})

    def _project_updated(self, data: Mapping[str, Any]) -> None:
        """A changed config is used from the next request on; reading it now puts its problems into the log."""
        project = data.get("project")
        if isinstance(project, Mapping):
            try:
                self._predictor.read(project.get("label_config"), project_id(project.get("id")))
            except BoxliftError as error:
                log.info("changed labelling config not looked at: %s", error)
