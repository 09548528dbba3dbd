"""`boxlift demo`: from nothing to a Label Studio project whose photos carry draft boxes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from backend.connecting import Wish, connect
from backend.demo.photos import LABELS, Photo, label_config, photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.demo.weights import choose_network
from backend.review.queue import doubtful_first
from backend.studio import Studio
from worker.errors import BoxliftError

TITLE = "Boxlift demo"
PATIENCE = 120.0
"""Seconds without a single new prediction after which the demo gives up."""


class DemoError(BoxliftError):
    """The demo ran, but not every photo got its box."""


@dataclass(frozen=True)
class Drafted:
    """One photo's best rectangle as Label Studio stores it; `label` is empty where there is none."""

    photo: str
    label: str = ""
    score: float = 0.0
    expected: str = ""
    """The label that the photo's main object deserves."""


@dataclass(frozen=True)
class Summary:
    """What was verified through Label Studio's API."""

    drafted: tuple[Drafted, ...]
    seconds: float
    network: str

    @property
    def with_prediction(self) -> int:
        """Number of tasks that have a rectangle of the running model's version."""
        return sum(bool(item.label) for item in self.drafted)

    def to_json(self) -> str:
        """One line for programs."""
        return json.dumps(
            {
                "tasks": len(self.drafted),
                "with_prediction": self.with_prediction,
                "seconds": round(self.seconds, 1),
                "network": self.network,
            }
        )


class Demo:
    """One run of the demo in `folder`; messages for people go to `console`."""

    def __init__(self, folder: Path, console: Console, *, studio_port: int = 0, backend_port: int = 0) -> None:
        self.console = console
        self.stack = Stack(folder, studio_port=studio_port, backend_port=backend_port)

    def prepare(self, network: str, weights: Path | None, cache_dir: Path) -> Summary:
        """Start everything, import the photos, get predictions and verify them.

        Raises DemoError where a photo has no rectangle, ProcessError where a process ended.
        """
        began = time.monotonic()
        stack = self.stack
        self._say("Starting Redis and Label Studio")
        stack.start_studio()
        choice = choose_network(network, weights, cache_dir)  # downloads while Label Studio starts
        if choice.notice:
            self.console.print(f"[bold yellow]Notice:[/] {choice.notice}", highlight=False)
        stack.studio.wait()
        self._say(f"Starting a worker with {choice.network}, and the backend")
        stack.start_worker(choice.network, weights)
        stack.start_backend()
        model = stack.wait()
        with stack.studio_api() as studio:
            project = self._project(studio, model.version)
            self._say(f"Asking for predictions of {model.version}")
            studio.retrieve_predictions(project)
            drafted = self._await(studio, project, model.version)
        return Summary(tuple(drafted), time.monotonic() - began, model.network)

    def _project(self, studio: StudioApi, version: str) -> int:
        """The project with its photos, connected to the backend; made where it is not there yet."""
        project = studio.projects().get(TITLE)
        if project is None:
            project = studio.create_project(TITLE, label_config(), show_collab_predictions=True)
        if not studio.tasks(project):
            shipped = photos()
            self._say(f"Importing {len(shipped)} photos")
            studio.upload(project, [photo.path for photo in shipped])
        # An earlier start's backend may have had another port; Label Studio asks only the first connection.
        studio.disconnect(project, keep=self.stack.backend_url)
        api = Studio(studio.url, self.stack.studio.login.token)
        connect(api, project, version, Wish(self.stack.backend_url))
        doubtful_first(api, project)
        return project

    def _await(self, studio: StudioApi, project: int, version: str) -> list[Drafted]:
        """Poll Label Studio until every task has a prediction of `version`, or nothing happens any more."""
        tasks = studio.tasks(project)
        seen = -1
        patience = time.monotonic() + PATIENCE
        while True:
            stored = {item["task"]: item for item in studio.predictions(project, version)}
            if len(stored) > seen:
                seen = len(stored)
                patience = time.monotonic() + PATIENCE
            if all(task["id"] in stored for task in tasks) or time.monotonic() > patience:
                return [_drafted(task, stored.get(task["id"]), photos()) for task in tasks]
            self.stack.check()
            time.sleep(0.25)

    def show(self, summary: Summary) -> None:
        """The table, and where to look."""
        table = Table("photo", "label", "score", title=f"{summary.network}: draft boxes in Label Studio")
        for item in summary.drafted:
            label = item.label or "[red]none[/]"
            if item.label and item.expected and item.label != item.expected:
                label += f" [dim](it is a {item.expected.lower()})[/]"
            table.add_row(item.photo, label, f"{item.score:.2f}" if item.label else "")
        self.console.print(table)

    def verify(self, summary: Summary) -> None:
        """Raise DemoError that names the photos without a rectangle, and why if that is known."""
        missing = [item.photo for item in summary.drafted if not item.label]
        if missing or not summary.drafted:
            reasons = "".join(f"\n  {reason}" for reason in self.stack.failures()[:3])
            raise DemoError(
                f"{len(missing)} of {len(summary.drafted)} photos have no box: {', '.join(missing)}{reasons}"
            )

    def show_login(self) -> None:
        """Where to look, and as whom."""
        login = self.stack.studio.login
        self.console.print(f"\nLabel Studio  [bold]{self.stack.studio.url}[/]", highlight=False)
        self.console.print(f"  email       {login.email}\n  password    {login.password}", highlight=False)
        self.console.print(f"Backend       {self.stack.backend_url}", highlight=False)
        self.console.print(f"Logs          {self.stack.folder}", highlight=False, soft_wrap=True)
        self.console.print("\nCtrl-C stops everything; the next start finds your work again.")

    def serve(self) -> None:
        """Stay until interrupted. Raises ProcessError if a process ends."""
        while True:
            self.stack.check()
            time.sleep(1.0)

    def _say(self, text: str) -> None:
        self.console.print(f"• {text}", highlight=False)


def _drafted(task: dict[str, Any], prediction: dict[str, Any] | None, shipped: Sequence[Photo]) -> Drafted:
    """The best-scored rectangle of a stored prediction, if it is one of the project's labels."""
    name = str(task["data"]["image"]).rsplit("/", 1)[-1].split("-", 1)[-1]  # uploads are <8 hex>-<name>
    expected = next((photo.label for photo in shipped if photo.file == name), "")
    found = [
        (float(item["score"]), label)
        for item in (prediction or {}).get("result", [])
        if item["type"] == "rectanglelabels" and item.get("score") is not None
        for label in item["value"]["rectanglelabels"]
        if label in LABELS
    ]
    score, label = max(found, default=(0.0, ""))
    return Drafted(name, label, score, expected)
