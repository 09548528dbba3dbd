"""A whole Label Studio project through the queue: its tasks, delivered and checked as everything else is.

Nothing is kept between runs but what Label Studio and Redis hold anyway: a run that was interrupted asks for what
is still missing, and what workers have finished meanwhile is delivered without being computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from backend.bulk.collecting import LOOK, Collector
from backend.bulk.files import Progress, errors
from backend.bulk.summary import Summary
from backend.bulk.tasks import Row, among, list_tasks, view_number
from backend.bulk.workforce import Workforce
from backend.connecting import OURS
from backend.delivery import delivering
from backend.outbox import Outbox
from backend.overview import failures
from backend.predictions import to_prediction
from backend.predictor import Predictor
from backend.queueing import talking
from backend.studio import Studio
from worker.contract import Request, Result
from worker.errors import LabellingError, QueueError

Which = Literal["present", "only-missing", "replace"]
PATIENCE = 30.0
"""Seconds that Redis may take to say which model predicts for the project."""
DELIVERY_SECONDS = 300.0
"""Seconds in which not one result reaches Label Studio after which it is given up."""
_NOT_STORED = "Label Studio has no prediction of it: run this again"


@dataclass(frozen=True)
class ProjectOrder:
    """What is wanted of a project."""

    project: int
    view: str = ""
    """A Data Manager tab, by number or title; all tasks without it."""
    which: Which = "present"
    """`present`: tasks without a prediction of the present version. `only-missing`: without any of ours.
    `replace`: as `present`, and our older predictions go afterwards where nobody has annotated."""
    unannotated: bool = False
    """Only tasks that nobody has annotated or skipped."""


def preannotate_project(
    force: Workforce, studio: Studio, order: ProjectOrder, progress: Progress, idle: Callable[[str], object]
) -> Summary:
    """Predict a project's tasks and see that Label Studio has every prediction. Annotations are never touched.

    Raises StudioError, QueueError, ProcessError, and LabellingError where nothing can be predicted.
    """
    config = studio.project(order.project).label_config
    predictor = Predictor(force.settings, force.jobs, patience=PATIENCE)
    model, reading = serving = predictor.serving(order.project, config)  # for the whole run, whatever is announced
    version = model.version
    if reading.plan is None:
        raise LabellingError(f"project {order.project}: nothing can be predicted: " + "; ".join(reading.notes))
    view = view_number(studio, order.project, order.view) if order.view else None
    rows = [row for row in list_tasks(studio, order.project, view) if not (order.unannotated and row.annotated)]
    todo = [row for row in rows if not _has(row, version, order.which)]
    tasks = [{"id": row.id, "data": row.data} for row in todo]
    requests = predictor.requests(order.project, tasks, config, serving)
    summary = Summary(version, len(todo), already=len(rows) - len(todo), warnings=list(reading.notes))
    asked = {request.task for request in requests}
    for row in todo:
        if row.id not in asked:
            summary.fail(str(row.id), "it has no photo that boxes can be drawn on: see its data")
    with delivering(force.settings):
        results = _run(force, requests, summary, progress, idle)
        stored = _delivered(force, studio, order.project, version, results, idle)
    _count_earlier(summary, studio, order.project, (row.id for row in rows if version in row.versions))
    reported = _reported(force, order.project) if set(results) - stored else {}
    for task, result in results.items():
        prediction = to_prediction(result, reading.mapping)
        if prediction is None:
            summary.fail(str(task), errors(result))
        elif task in stored:
            summary.add(prediction["result"])
            if reasons := errors(result):
                summary.warnings.append(f"task {task}: {reasons}")
        else:
            summary.fail(str(task), reported.get(task, _NOT_STORED))
    if order.which == "replace":
        remove_older(studio, order.project, version, rows)
    return summary


def _count_earlier(summary: Summary, studio: Studio, project: int, tasks: Iterable[int]) -> None:
    """Boxes and scores of what earlier runs did: a run that was interrupted and goes on tells of the whole."""
    for _, predictions in among(studio, project, tasks):
        for item in predictions:
            if item.get("model_version") == summary.version:
                summary.count(item.get("result") or ())


def _has(row: Row, version: str, which: Which) -> bool:
    """Whether a task needs nothing."""
    if which == "only-missing":
        return any(stored.startswith(OURS) for stored in row.versions)
    return version in row.versions


def _run(
    force: Workforce,
    requests: Sequence[Request],
    summary: Summary,
    progress: Progress,
    idle: Callable[[str], object],
) -> dict[int, Result]:
    """Results by task; what went wrong goes into the summary."""
    results: dict[int, Result] = {}
    start = time.monotonic()
    progress(0, summary.failed, summary.total)
    for outcome in Collector(force.jobs, check=force.check, idle=idle).run(requests):
        if outcome.result is None:
            summary.fail(str(outcome.request.task), outcome.reason)
        else:
            results[outcome.request.task] = outcome.result
        progress(len(results), summary.failed, summary.total)
    summary.seconds, summary.computed = time.monotonic() - start, len(requests)
    return results


def _delivered(
    force: Workforce,
    studio: Studio,
    project: int,
    version: str,
    results: Mapping[int, Result],
    idle: Callable[[str], object],
) -> set[int]:
    """The tasks whose prediction Label Studio has, once none of them is on its way any more.

    Raises QueueError where Label Studio takes nothing for minutes: what waits stays in Redis.
    """
    outbox, tasks = Outbox(force.client), set(results)
    least, patience = len(tasks) + 1, time.monotonic() + DELIVERY_SECONDS
    while True:
        with talking():
            waiting = len(outbox.tasks(project) & tasks)
        if not waiting:
            return studio.predicted(project, version, tasks)
        if waiting < least:
            least, patience = waiting, time.monotonic() + DELIVERY_SECONDS
        elif time.monotonic() > patience:
            raise QueueError(
                f"{waiting} predictions of project {project} wait in Redis, and Label Studio takes none: see its "
                "log, then run this again"
            )
        idle(f"{waiting} predictions are on their way to Label Studio")
        time.sleep(LOOK)


def _reported(force: Workforce, project: int) -> dict[int, str]:
    """Task → why its result did not become a prediction, as its delivery has said lately."""
    with talking():
        return {one.task: one.reason for one in reversed(failures(force.client)) if one.project == project}


def remove_older(studio: Studio, project: int, version: str, rows: Iterable[Row]) -> int:
    """Delete our older predictions of those of the tasks that have one of this version and that nobody has
    annotated: an annotation names the prediction it started from. Returns how many there were.

    People work while a data set is predicted: whether somebody has annotated is asked again just before each lot
    goes. Label Studio deletes single predictions, or all of a task or version, those of annotated tasks included.
    """

    def older(name: object) -> bool:
        return str(name or "").startswith(OURS) and name != version

    gone = 0
    candidates = [row.id for row in rows if not row.annotated]
    for row, predictions in among(studio, project, candidates):
        if row.annotated or version not in row.versions:
            continue
        for item in predictions:
            if older(item.get("model_version")):
                doing = f"the end of prediction {item['id']}"
                studio.request("DELETE", f"api/predictions/{item['id']}", doing)
                gone += 1
    return gone
