"""Webhook events: what Label Studio tells, and what is done about it. Anything unknown is politely let go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backend.predictor import Predictor, project_id
from worker.errors import BoxliftError

log = logging.getLogger(__name__)

BACKLOG = 64
"""Events that may wait for their turn; Label Studio gives an answer one second, so work is done after it."""


class Events:
    """Takes events at once and works on them one after the other in a thread of its own."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        self._room = threading.BoundedSemaphore(BACKLOG)

    def take(self, action: object, data: Mapping[str, Any]) -> str:
        """Accept an event. Returns what becomes of it: `accepted`, `busy` or `ignored`."""
        if action == "TASKS_CREATED" and self._predictor.settings.preannotate == "yes":
            if not self._room.acquire(blocking=False):
                log.warning("TASKS_CREATED not taken: %d events wait already", BACKLOG)
                return "busy"
            self._pool.submit(self._tasks_created, data)
            return "accepted"
        if action == "PROJECT_UPDATED":
            project = data.get("project")
            if isinstance(project, Mapping):
                self._read(project)
                return "accepted"
        return "ignored"

    def close(self) -> None:
        """Finish what was accepted."""
        self._pool.shutdown(wait=True)

    def _tasks_created(self, data: Mapping[str, Any]) -> None:
        try:
            project, tasks = data.get("project"), data.get("tasks")
            number = project_id(project.get("id")) if isinstance(project, Mapping) else None
            if number is None or not isinstance(project, Mapping) or not isinstance(tasks, Sequence):
                return
            fresh = [task for task in tasks if isinstance(task, Mapping) and not task.get("total_predictions")]
            count = self._predictor.enqueue(number, fresh, project.get("label_config"))
            log.info("%d new tasks enqueued", count, extra={"project": number})
        except BoxliftError as error:
            log.warning("new tasks not enqueued: %s", error)
        except Exception:
            log.exception("new tasks not enqueued")
        finally:
            self._room.release()

    def _read(self, project: Mapping[str, Any]) -> None:
        """A changed config is used from the next request on; reading it now puts its problems into the log."""
        try:
            self._predictor.read(project.get("label_config"))
        except BoxliftError as error:
            log.info("changed labelling config not looked at: %s", error)
