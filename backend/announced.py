"""What answers come from: the model that workers announced, or a project's own tuning of it; both known at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from backend.remembered import Remembered
from worker.contract import Model, Tuning
from worker.errors import QueueError

log = logging.getLogger(__name__)

_PROJECTS = 1000
"""Projects whose tunings are remembered."""


class Announced:
    """The model that workers announced, see `Remembered`."""

    def __init__(self, read: Callable[[], Model | None], *, fresh: float = 1.0, patience: float = 1.0) -> None:
        self._read = read
        self._last: Model | None = None
        self._found = Remembered(self._ask, "the announced model", fresh=fresh, patience=patience)

    def model(self) -> Model:
        """The model as last known. Raises QueueError, with what to do, where none ever was."""
        found = self._found.value()
        if found is None:
            raise QueueError(self.problem or "no worker has announced a model yet: start `boxlift worker`")
        return found

    @property
    def problem(self) -> str:
        """Why the last question had no answer; empty if it had."""
        return self._found.problem

    def _ask(self) -> Model | None:
        self._last = self._read() or self._last
        return self._last


class Tuned:
    """Projects' own tunings, as far as they belong to the announced model. Safe between threads."""

    def __init__(self, read: Callable[[int], Tuning | None], *, fresh: float = 1.0, patience: float = 1.0) -> None:
        self._read = read
        self._times = {"fresh": fresh, "patience": patience}
        self._lock = threading.Lock()
        self._found: dict[int, Remembered[Tuning | None]] = {}
        self._told: set[tuple[int, str, str]] = set()

    def model(self, project: int, announced: Model) -> Model:
        """The project's own model, or the announced one where it has none. A tuning of another model is not used,
        with one notice: the project has the defaults until it is tuned again.

        Raises QueueError where Redis has never said whether there is one: predictions of a version that is not the
        project's would stay beside those that are.
        """
        found = self._remembered(project)
        tuning = found.value()
        if not found.known:
            raise QueueError(found.problem or "Redis does not answer: check REDIS_URL and the server")
        if tuning is None:
            return announced
        if tuning.base != announced.version:
            self._notice(project, tuning, announced)
            return announced
        return tuned_model(tuning, announced)

    def _remembered(self, project: int) -> Remembered[Tuning | None]:
        with self._lock:
            if project not in self._found:
                if len(self._found) >= _PROJECTS:
                    self._found.clear()
                what = f"the tuning of project {project}"
                self._found[project] = Remembered(lambda: self._read(project), what, **self._times)
            return self._found[project]

    def _notice(self, project: int, tuning: Tuning, announced: Model) -> None:
        told = project, tuning.version, announced.version
        if told in self._told:
            return
        self._told.add(told)
        log.warning(
            "its own tuning %s belongs to %s and is not used with %s: `boxlift tune --project %d` makes a new one",
            tuning.version,
            tuning.base,
            announced.version,
            project,
            extra={"project": project},
        )


def tuned_model(tuning: Tuning, base: Model) -> Model:
    """The model of a project's own tuning: its labels are further classes."""
    own = () if tuning.head is None else tuning.head.labels
    return replace(base, version=tuning.version, classes=base.classes + own, own=len(own))
