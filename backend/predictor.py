"""Tasks in, predictions out: what /predict does, whoever serves it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from backend.announced import Announced, Tuned
from backend.interactive import Question, answer, drawn, questions
from backend.labelling import task_images
from backend.plans import Reading, read_config
from backend.predictions import Prediction, to_prediction
from backend.settings import Settings
from worker.contract import ImageRef, Model, Plan, Request, Result, Tuning, embedded_address
from worker.errors import BoxliftError, QueueError, QueueFullError

log = logging.getLogger(__name__)

Entry = Prediction | list[Prediction]
"""What is answered for one task: a prediction, or [] for "not yet: ask again"."""
LARGEST_ID = 2**63 - 1


class Queue(Protocol):
    """What the predictor needs of `backend.queueing.Jobs`. Every method may raise QueueError."""

    def model(self) -> Model | None: ...

    def tuning(self, project: int) -> Tuning | None: ...

    def wish_tuning(self, project: int, *, repredict: bool) -> bool: ...

    def corrected(self, project: int, some: int, every: int) -> bool: ...

    def put_plan(self, plan: Plan) -> str: ...

    def submit(self, requests: Sequence[Request], *, interactive: bool, wait: float = 0.0) -> dict[int, Result]: ...

    def hand_over(self, results: Iterable[Result]) -> None: ...

    def cancel(self, project: int, tasks: Iterable[int] | None = None) -> int: ...


class Predictor:
    """Answers for any number of projects; holds nothing about any of them. Safe between threads."""

    def __init__(self, settings: Settings, jobs: Queue, *, patience: float = 1.0) -> None:
        """`patience` is how many seconds a question waits for Redis: a command can wait longer than a request."""
        self.settings = settings
        self._jobs = jobs
        self._announced = Announced(jobs.model, patience=patience)
        self._tuned = Tuned(jobs.tuning, patience=patience)
        spare = max(2, settings.threads // 4)
        self._slots = threading.BoundedSemaphore(max(1, settings.threads - spare))

    @classmethod
    def from_settings(cls, settings: Settings) -> Predictor:
        """A predictor on the Redis that the settings name. Nothing is connected before the first request."""
        from backend.queueing import Jobs, connect

        return cls(settings, Jobs.of(connect(settings.redis_url), settings))

    def model(self, project: int | None = None) -> Model:
        """The model of the workers, or a project's own tuning of it, at once. Raises QueueError, with what to do,
        where none was ever announced."""
        announced = self._announced.model()
        return self._tuned.model(project, announced) if project else announced

    def read(self, label_config: object, project: int | None = None) -> Reading:
        """A labelling config as the present model sees it. Raises QueueError as `model` does."""
        return self.serving(project, label_config)[1]

    def serving(self, project: int | None, label_config: object) -> tuple[Model, Reading]:
        """The model that answers for a project, and how it sees the labelling config. Raises QueueError as `model`
        does."""
        config = label_config if isinstance(label_config, str) else ""
        announced = self._announced.model()
        model = self._tuned.model(project, announced) if project else announced
        tuning = None if model.version == announced.version else model.version
        return model, read_config(config, model, self.settings.unmatched, tuning)

    def predict(self, project: int, tasks: Sequence[object], label_config: object) -> list[Entry]:
        """One entry for each task, in order: its prediction if it is there in time, else [].

        Waits only for few tasks, and only while enough threads are free; the rest comes by push. Raises nothing
        but QueueFullError, also for more than a few tasks that could not be enqueued: Label Studio asks again for
        those that somebody opens, and for no others.
        """
        entries: list[Entry] = [[] for _ in tasks]
        try:
            model, reading = self.serving(project, label_config)
            requests = self._requests(project, tasks, reading, model)
            ready = self._submit(list(requests.values()), wait=True)
        except QueueFullError:
            raise
        except BoxliftError as error:
            log.warning("%d tasks not predicted: %s", len(tasks), error, extra={"project": project})
            if isinstance(error, QueueError) and len(tasks) > self.settings.answer_tasks:
                raise QueueFullError(f"{len(tasks)} tasks were not taken: {error}") from None
            return entries
        for position, request in requests.items():
            result = ready.get(request.task)
            prediction = to_prediction(result, reading.mapping) if result else None
            if prediction is not None:
                entries[position] = prediction
            elif result is not None:
                where = {"project": project, "task": request.task, "job": request.job_id}
                log.warning("not predicted: %s", _errors(result), extra=where)
        log.info("%d of %d tasks answered", sum(map(bool, entries)), len(tasks), extra={"project": project})
        return entries

    def assist(
        self, project: int, tasks: Sequence[object], label_config: object, context: Mapping[str, Any] | None
    ) -> list[Prediction]:
        """What smart tools are told: one prediction for each task, its `result` empty where nothing fits.

        The person who waits is served before everything else. Never raises.
        """
        entries = [nothing(self._version(project)) for _ in tasks]
        drawing = drawn(context)
        if drawing is None or not isinstance(label_config, str):
            return entries
        try:
            model, reading = self.serving(project, label_config)
            for position, task in enumerate(tasks):
                number = task_id(task)
                if number is not None and isinstance(task, Mapping):
                    images = task_images(task.get("data"), reading.labelling)
                    asked = questions(drawing, images, reading, label_config)
                    found = self._assist(project, number, asked, reading, model)
                    entries[position] = found or entries[position]
        except BoxliftError as error:
            log.warning("no help for a smart tool: %s", error, extra={"project": project})
        return entries

    def _assist(
        self, project: int, task: int, asked: Iterator[Question], reading: Reading, model: Model
    ) -> Prediction | None:
        deadline = time.monotonic() + self.settings.answer_seconds
        for question in asked:
            plan = self._jobs.put_plan(question.plan)
            images = _without_bytes(project, task, (question.image,))
            request = Request(project, task, model.version, plan, images, push=False)
            with self._slot(True) as may_wait:
                seconds = max(deadline - time.monotonic(), 0.0) if may_wait else 0.0
                ready = self._jobs.submit([request], interactive=True, wait=seconds)
            for image in ready[task].images if task in ready else ():
                found = answer(question, image, reading, model.version)
                if found is not None:
                    return found
        return None

    def _version(self, project: int) -> str:
        try:
            return self.model(project).version
        except BoxliftError:
            return ""

    def enqueue(
        self,
        project: int,
        tasks: Sequence[object],
        label_config: object,
        serving: tuple[Model, Reading] | None = None,
    ) -> int:
        """Have tasks predicted in the background; returns how many. Raises QueueError."""
        requests = self.requests(project, tasks, label_config, serving)
        done = self._submit(requests, wait=False)
        self._jobs.hand_over(done.values())  # nobody here answers with what was finished before
        return len(requests)

    def requests(
        self,
        project: int,
        tasks: Sequence[object],
        label_config: object,
        serving: tuple[Model, Reading] | None = None,
    ) -> list[Request]:
        """What workers would be asked for the tasks that have an id and a picture. `serving` keeps to one answer of
        that method, whatever is announced meanwhile. Raises QueueError."""
        model, reading = serving or self.serving(project, label_config)
        return list(self._requests(project, tasks, reading, model).values())

    def wish_tuning(self, project: int, *, repredict: bool) -> bool:
        """Have somebody learn from the project's corrections. False where that is wished for already. Raises
        QueueError."""
        return self._jobs.wish_tuning(project, repredict=repredict)

    def corrected(self, project: int, some: int = 1) -> bool:
        """Count corrections; True where there are enough to learn from them again. Raises QueueError."""
        return self._jobs.corrected(project, some, self.settings.tune_every)

    def forget(self, project: int, tasks: Iterable[int]) -> int:
        """These tasks are gone: their jobs leave the queue. Returns how many. Raises QueueError."""
        return self._jobs.cancel(project, tasks)

    def _requests(
        self, project: int, tasks: Sequence[object], reading: Reading, model: Model
    ) -> dict[int, Request]:
        """Position → request, for the tasks that have an id and a picture."""
        if reading.plan is None:
            return {}
        plan = self._jobs.put_plan(reading.plan)
        requests = {}
        for position, task in enumerate(tasks):
            number = task_id(task)
            images = reading.images(task.get("data")) if isinstance(task, Mapping) else ()
            if number is not None and images:
                images = _without_bytes(project, number, images)
                requests[position] = Request(project, number, model.version, plan, images)
        return requests

    def _submit(self, requests: list[Request], *, wait: bool) -> dict[int, Result]:
        if not requests:
            return {}
        few = wait and len(requests) <= self.settings.answer_tasks
        with self._slot(few) as may_wait:
            seconds = self.settings.answer_seconds if may_wait else 0.0
            return self._jobs.submit(requests, interactive=few, wait=seconds)

    @contextmanager
    def _slot(self, wanted: bool) -> Iterator[bool]:
        """Whether this thread may wait: some always stay free for /health and /setup."""
        got = wanted and self._slots.acquire(blocking=False)
        try:
            yield got
        finally:
            if got:
                self._slots.release()


def _without_bytes(project: int, task: int, images: Iterable[ImageRef]) -> tuple[ImageRef, ...]:
    """The images with addresses only: workers read `data:` URIs from the task itself."""
    return tuple(replace(image, url=embedded_address(project, task, image.url)) for image in images)


def nothing(version: str) -> Prediction:
    """A prediction without boxes."""
    return {"result": [], "score": 0.0, "model_version": version}


def task_id(task: object) -> int | None:
    """A task's number, or None where it has none that Label Studio could have given it."""
    number = task.get("id") if isinstance(task, Mapping) else None
    if isinstance(number, int) and not isinstance(number, bool) and 0 < number <= LARGEST_ID:
        return number
    return None


def project_id(value: Any) -> int | None:
    """A project's number out of `5`, `"5"` or the `"5.1795471504"` that Label Studio sends."""
    text = str(value).partition(".")[0] if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        return None
    return int(text) if 0 < int(text) <= LARGEST_ID else None


def _errors(result: Result) -> str:
    return "; ".join(dict.fromkeys(image.error for image in result.images if image.error)) or "no picture"
