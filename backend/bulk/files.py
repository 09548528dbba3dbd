"""Photos and tasks in files through the queue, and their boxes into a file: no Label Studio needed.

Each result goes into a journal beside the output as soon as it is there; the output itself is written at the end,
in one piece. A run that was interrupted, however that happened, goes on with what the journal lacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.bulk.collecting import Collector
from backend.bulk.formats import WRITERS, Predicted
from backend.bulk.journal import Journal
from backend.bulk.sources import Item, Source, SourceError
from backend.bulk.summary import Summary
from backend.bulk.workforce import Workforce
from backend.plans import Reading, read_config
from worker.contract import Model, Request, Result, digest

PROJECT = 0
"""Project of work that is no project's."""
Progress = Callable[[int, int, int], object]
"""Told how many tasks are done, failed, and wanted."""


@dataclass(frozen=True)
class Order:
    """What is wanted of files."""

    source: Source
    label_config: str
    out: Path
    format: str = "label-studio"

    @property
    def journal(self) -> Path:
        """Where the results so far are."""
        return self.out.with_name(f"{self.out.name}.partial")


def preannotate_files(force: Workforce, order: Order, progress: Progress, idle: Callable[[str], object]) -> Summary:
    """Predict all tasks of a source and write them out. Raises SourceError, QueueError, ProcessError.

    The journal stays where some failed: the next run tries only these.
    """
    model = force.jobs.model()
    if model is None:
        raise SourceError("the workers have announced no model: see their log")
    reading = read_config(order.label_config, model, force.settings.unmatched)
    if reading.plan is None:
        raise SourceError("nothing can be predicted with this labelling config: " + "; ".join(reading.notes))
    plan = force.jobs.put_plan(reading.plan)
    requests = [_request(item, reading, model, plan) for item in order.source.items]
    with Journal(order.journal) as journal:
        before = journal.read()
        found = {r.job_id: before[r.job_id] for r in requests if r is not None and r.job_id in before}
        missing = list({r.job_id: r for r in requests if r is not None and r.job_id not in found}.values())
        reasons: dict[str, str] = {}
        start = time.monotonic()
        total = len(found) + len(missing)
        progress(len(found), 0, total)
        for outcome in Collector(force.jobs, check=force.check, idle=idle).run(missing):
            if outcome.result is None:
                reasons[outcome.request.job_id] = outcome.reason
            elif all(image.error for image in outcome.result.images):
                reasons[outcome.request.job_id] = errors(outcome.result)
            else:
                found[outcome.request.job_id] = outcome.result
                journal.add(outcome.request.job_id, outcome.result)
            progress(len(found), len(reasons), total)
        seconds = time.monotonic() - start
    results = [found.get(request.job_id) if request is not None else None for request in requests]
    tasks = [Predicted(item, result) for item, result in zip(order.source.items, results, strict=True)]
    labels = [label.value for control in reading.labelling.controls for label in control.labels]
    WRITERS[order.format](order.out, tasks, reading.mapping, labels)
    summary = _summary(model.version, tasks, requests, reasons, reading)
    summary.seconds, summary.computed = seconds, len(missing)
    if not summary.failed or not found:
        journal.remove()
    return summary


def _request(item: Item, reading: Reading, model: Model, plan: str) -> Request | None:
    """What is asked of workers for a task. Its number follows from its photos, not from its place in the source."""
    images = tuple(image for image in item.images if reading.mapping.classes(image.to_name) != ())
    if not images:
        return None
    number = int(digest([image.to_dict() for image in images], 15), 16)
    return Request(PROJECT, number, model.version, plan, images, push=False)


def _summary(
    version: str,
    tasks: Sequence[Predicted],
    requests: Sequence[Request | None],
    reasons: dict[str, str],
    reading: Reading,
) -> Summary:
    summary = Summary(version, len(tasks), warnings=list(reading.notes))
    for task, request in zip(tasks, requests, strict=True):
        name = ", ".join(task.item.names) or f"{str(task.item.task.get('data'))[:100]}"
        prediction = task.prediction(reading.mapping)
        if prediction is not None:
            summary.add(prediction["result"])
            assert task.result is not None  # noqa: S101 - there is a prediction of it
            if any(image.error for image in task.result.images):
                summary.warnings.append(f"{name}: {errors(task.result)}")
        elif request is None:
            summary.fail(name, "it has no photo that boxes can be drawn on: check the names in its data")
        else:
            summary.fail(name, reasons.get(request.job_id, "no photo of it could be used"))
    return summary


def errors(result: Result) -> str:
    """Why photos of a task could not be used."""
    return "; ".join(dict.fromkeys(image.error for image in result.images if image.error))
