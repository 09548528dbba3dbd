"""Webhook events: what Label Studio tells, and what is done about it. Anything unknown is politely let go."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from backend.background import Background, NotNowError
from backend.predictor import Predictor, project_id, task_id
from worker.errors import BoxliftError, QueueError

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
        number, tasks = _project(data), data.get("tasks")
        if number is None or not isinstance(tasks, Sequence):
            return
        fresh = [task for task in tasks if isinstance(task, Mapping) and not task.get("total_predictions")]
        with _until_it_works(number, "new tasks not enqueued"):
            count = self._predictor.enqueue(number, fresh, data["project"].get("label_config"))
            log.info("%d new tasks enqueued", count, extra={"project": number})

    def _tasks_deleted(self, data: Mapping[str, Any]) -> None:
        """Tasks that are gone are not looked at any more; their numbers may be given to others."""
        number, tasks = _project(data), data.get("tasks")
        if number is None or not isinstance(tasks, Sequence):
            return
        gone = [found for found in map(task_id, tasks) if found is not None]
        with _until_it_works(number, "deleted tasks stay in the queue"):
            count = self._predictor.forget(number, gone)
            log.info("%d jobs of deleted tasks cancelled", count, extra={"project": number})

    def _start_training(self, data: Mapping[str, Any]) -> None:
        """The button: learn from the project's corrections."""
        self._wish(_project(data))

    def _corrected(self, data: Mapping[str, Any]) -> None:
        """Somebody has annotated: after enough of it, learn from it."""
        number, made = _project(data), data.get("annotation")
        some = max(1, len(made)) if isinstance(made, list) else 1
        try:
            if number and self._predictor.corrected(number, some):
                try:
                    self._wish(number)
                except NotNowError:  # later, by itself: trying all of this again would count again
                    self._background.later(self._wish, number)
        except BoxliftError as error:
            log.warning("a correction was not counted: %s", error, extra={"project": number})

    def _wish(self, project: int | None) -> None:
        if project is None:
            return
        with _until_it_works(project, "not tuned"):
            new = self._predictor.wish_tuning(project, repredict=self._repredict)
            log.info("tuning %s", "wished for" if new else "is wished for already", extra={"project": project})

    def _project_updated(self, data: Mapping[str, Any]) -> None:
        """A changed config is used from the next request on; reading it now puts its problems into the log."""
        number = _project(data)
        if number is not None:
            try:
                self._predictor.read(data["project"].get("label_config"), number)
            except BoxliftError as error:
                log.info("changed labelling config not looked at: %s", error, extra={"project": number})


def _project(data: Mapping[str, Any]) -> int | None:
    """The number of the project that an event is about."""
    project = data.get("project")
    return project_id(project.get("id")) if isinstance(project, Mapping) else None


@contextmanager
def _until_it_works(project: int, what: str) -> Iterator[None]:
    """Have it tried again where Redis is away, or the queue full: Label Studio tells of nothing twice."""
    try:
        yield
    except QueueError as error:
        raise NotNowError(f"{what} in project {project}: {error}") from None
    except BoxliftError as error:
        log.warning("%s: %s", what, error, extra={"project": project})
