"""A queue without Redis for the backend's own tests, and Label Studio's recorded requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from backend.labelling.imagenet import taxonomy
from worker.contract import Box, Detection, ImageResult, Model, Plan, Request, Result, Tuning
from worker.errors import QueueError

VERSION = "boxlift-vgg16-0123456789ab"


class Desk:
    """Finds one box in every picture: of the first class that the plan allows, else of class 0."""

    box: Box = (10.0, 20.0, 60.0, 80.0)
    """In pixels of a picture of 100 by 100."""

    def __init__(self, model: Model | None = None) -> None:
        self.announced = model
        self.plans: dict[str, Plan] = {}
        self.tunings: dict[int, Tuning] = {}
        self.wishes: list[tuple[int, bool]] = []
        self.corrections = 0
        self.asked: list[tuple[list[Request], bool, float]] = []
        self.cancelled: list[tuple[int, set[int] | None]] = []
        self.handed_over: list[int] = []
        self.ready = True
        self.error: QueueError | None = None

    def model(self) -> Model | None:
        if self.error:
            raise self.error
        return self.announced

    def tuning(self, project: int) -> Tuning | None:
        return self.tunings.get(project)

    def wish_tuning(self, project: int, *, repredict: bool) -> bool:
        self.wishes.append((project, repredict))
        return True

    def corrected(self, project: int, some: int, every: int) -> bool:
        self.corrections += some
        return self.corrections % every == 0

    def put_plan(self, plan: Plan) -> str:
        self.plans[plan.digest] = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
        return plan.digest

    def submit(self, requests: Sequence[Request], *, interactive: bool, wait: float = 0.0) -> dict[int, Result]:
        if self.error:
            raise self.error
        self.asked.append((list(requests), interactive, wait))
        for request in requests:
            Request.from_dict(json.loads(json.dumps(request.to_dict())))
            assert not any(image.url.startswith("data:") for image in request.images), "image bytes in a job"
        return {request.task: self.find(request) for request in requests} if self.ready else {}

    def hand_over(self, results: Iterable[Result]) -> None:
        self.handed_over += [result.task for result in results]

    def cancel(self, project: int, tasks: Iterable[int] | None = None) -> int:
        gone = None if tasks is None else set(tasks)
        self.cancelled.append((project, gone))
        return 0

    def find(self, request: Request) -> Result:
        plan = self.plans[request.plan]
        images = []
        for ref in request.images:
            classes = plan.classes_for(ref)
            index = 0 if classes is None else classes[0]
            box = Detection(taxonomy().names[index], index, 0.5, self.box)
            images.append(ImageResult(ref, 100, 100, (box,)))
        return Result(request.project, request.task, request.model_version, request.plan, tuple(images))


def recordings(folder: Path, *prefixes: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and content of the recorded requests whose names start so."""
    found = [
        (path.stem, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((folder / "label-studio" / "fixtures").glob("*.json"))
    ]
    return [(name, recording) for name, recording in found if name.startswith(prefixes)]
