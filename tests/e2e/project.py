"""A Label Studio project as the end-to-end tests use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi

SECONDS = 300.0
"""Patience for predictions; a limit for a run that hangs, not a claim about speed."""


@dataclass(frozen=True)
class Project:
    """A project of the test's own, connected to the backend."""

    stack: Stack
    studio: StudioApi
    id: int
    version: str

    def retrieve(self, tasks: Sequence[int] | None = None) -> None:
        """Press "Retrieve Predictions"."""
        self.studio.retrieve_predictions(self.id, tasks)

    def predictions(self) -> dict[int, list[dict[str, Any]]]:
        """Task id → its stored predictions, whatever their version."""
        found: dict[int, list[dict[str, Any]]] = {}
        for item in self.studio.predictions(self.id):
            found.setdefault(item["task"], []).append(item)
        return found

    def annotations(self, task: int) -> list[dict[str, Any]]:
        """What people have submitted for a task."""
        return list(self.studio.call("GET", f"/api/tasks/{task}/annotations/"))

    def wait_for(self, tasks: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        """Predictions once all `tasks` have one; fails where that does not happen."""
        deadline = time.monotonic() + SECONDS
        while True:
            stored = self.predictions()
            missing = [task for task in tasks if task not in stored]
            if not missing:
                return stored
            assert time.monotonic() < deadline, f"tasks {missing} of {list(tasks)} got no prediction. {self._why()}"
            time.sleep(0.5)  # each look keeps Label Studio busy

    def _why(self) -> str:
        """What those who had to do with it say."""
        failures = "\n".join(self.stack.failures()[:5]) or "none"
        logs = [child for child in (self.stack.worker, self.stack.backend) if child is not None]
        return f"Failures: {failures}\n" + "\n".join(f"{child.log}:\n{child.tail(40)}" for child in logs)


NewProject = Callable[..., Project]
"""Makes a project, with a labelling config (the demo's if not given) and a `title`."""
