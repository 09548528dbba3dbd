"""What people made of the predictions: the newest annotation of each task, beside the boxes they were shown.

Read with the Data Manager's list of tasks, since opening a task would ask the backend for its prediction. Nothing
is stored: whatever is made of corrections can be made again from Label Studio.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.connecting import OURS
from backend.data_manager import Api, condition, pages, query
from backend.labelling import Control, Labelling
from worker.contract import Box

log = logging.getLogger("boxlift.corrections")

PAGE = 200
"""Tasks in one request: each comes with all its boxes."""


@dataclass(frozen=True)
class LabelledBox:
    """One box under one of the project's labels."""

    to_name: str
    """The Image tag that it lies on."""
    item_index: int | None
    """Page of a multi-page Image tag, from 0; None for a single image."""
    label: str
    """As results carry it; "" for a box without one."""
    box: Box
    """(x0, y0, x1, y1) as fractions of the upright image; what encloses it where it is turned."""
    id: str = ""
    """Label Studio's name of the region; a prediction's box that a person keeps or moves may keep it."""
    score: float | None = None
    """Of a predicted box, in [0, 1]; None where it has none."""

    @property
    def place(self) -> tuple[str, int | None]:
        """The picture that it lies on: Image tag and page."""
        return self.to_name, self.item_index


@dataclass(frozen=True)
class SeenPrediction:
    """One of our predictions, as a person was shown it."""

    version: str
    score: float
    """Of the whole prediction, in [0, 1]: that of its most doubtful box, 0 without boxes."""
    boxes: tuple[LabelledBox, ...]


@dataclass(frozen=True)
class Correction:
    """The newest annotation of one task by a person."""

    task: int
    data: Mapping[str, Any]
    annotation: int
    skipped: bool
    boxes: tuple[LabelledBox, ...]
    """What the person left; without meaning for a skipped task."""
    at: datetime
    """When it was saved last."""
    lead_time: float | None
    """Seconds that the person worked on it, as Label Studio counted them; None where it did not."""
    prediction: SeenPrediction | None
    """Ours that the annotation started from, or else our newest one of that moment; None where there was none."""


def corrections(studio: Api, project: int, labelling: Labelling) -> list[Correction]:
    """Corrections of a whole project, ordered by task. Raises StudioError.

    Annotations that `boxlift accept` made are nobody's correction. Regions that are no boxes of the labelling
    config's controls are left out, and counted in the log.
    """
    found, left_out = [], Counter[str]()
    for task in annotated_tasks(studio, project):
        correction = read_task(task, labelling, left_out)
        if correction is not None:
            found.append(correction)
    if left_out:
        told = ", ".join(f"{number} × {reason}" for reason, number in sorted(left_out.items()))
        log.warning("regions left out: %s", told, extra={"project": project})
    return found


def annotated_tasks(studio: Api, project: int) -> Iterator[Mapping[str, Any]]:
    """Tasks with annotations, skipped ones included, as Label Studio lists them: with data and predictions."""
    worked_on = (condition(name, "greater", 0) for name in ("total_annotations", "cancelled_annotations"))
    these = query(*worked_on, any_of=True, ordering=["tasks:id"])
    asked = {"project": project, "query": these, "page_size": PAGE}
    yield from pages(studio, asked, f"annotations of project {project}")


def read_task(
    task: Mapping[str, Any], labelling: Labelling, left_out: Counter[str] | None = None
) -> Correction | None:
    """The correction in one task of that list; None where no person has annotated it.

    `left_out` counts the regions that are no boxes, by reason.
    """
    left_out = Counter() if left_out is None else left_out
    people = [item for item in task.get("annotations") or () if not _accepted_by_command(item)]
    if not people:
        return None
    newest = max(people, key=lambda item: (_moment(item), item["id"]))
    lead_time = newest.get("lead_time")
    return Correction(
        task=int(task["id"]),
        data=task.get("data") or {},
        annotation=int(newest["id"]),
        skipped=bool(newest.get("was_cancelled")),
        boxes=read_boxes(newest.get("result") or (), labelling, left_out),
        at=_moment(newest),
        lead_time=float(lead_time) if isinstance(lead_time, int | float) and lead_time > 0 else None,
        prediction=_seen(newest, task.get("predictions") or (), labelling),
    )


def _accepted_by_command(annotation: Mapping[str, Any]) -> bool:
    """Whether this is what `backend.accepting` writes: every box a prediction's, in no time at all."""
    result = annotation.get("result") or ()
    untouched = bool(result) and all(item.get("origin") == "prediction" for item in result)
    return untouched and annotation.get("lead_time") == 0 and annotation.get("parent_prediction") is not None


def _seen(
    annotation: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]], labelling: Labelling
) -> SeenPrediction | None:
    parent, made = annotation.get("parent_prediction"), _moment(annotation, "created_at")
    started_from = [item for item in predictions if item["id"] == parent]
    there = started_from or [item for item in predictions if _ours(item) and _moment(item, "created_at") <= made]
    if not there or not _ours(shown := max(there, key=lambda item: int(item["id"]))):
        return None
    score = shown.get("score")
    boxes = read_boxes(shown.get("result") or (), labelling, Counter())
    return SeenPrediction(str(shown["model_version"]), float(score or 0.0), boxes)


def _ours(prediction: Mapping[str, Any]) -> bool:
    return str(prediction.get("model_version") or "").startswith(OURS)


def _moment(item: Mapping[str, Any], field: str = "updated_at") -> datetime:
    try:
        moment = datetime.fromisoformat(str(item.get(field) or item.get("created_at")))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def read_boxes(
    result: Iterable[Mapping[str, Any]], labelling: Labelling, left_out: Counter[str]
) -> tuple[LabelledBox, ...]:
    """The boxes in a result of an annotation or a prediction, in order; the others are counted in `left_out`."""
    items = [item for item in result if isinstance(item, Mapping) and isinstance(item.get("value"), Mapping)]
    beside = {
        (item.get("id"), item.get("from_name")): _first(item["value"].get("labels"))
        for item in items
        if item.get("type") == "labels"
    }
    partners = {control.labels_from_name for control in labelling.controls}
    drawn = {name: labelling.controls_from(name) for name in {control.from_name for control in labelling.controls}}
    paged = {image.name for image in labelling.images if image.pages}
    boxes = []
    for item in items:
        controls = drawn.get(str(item.get("from_name")), ())
        if any(item.get("to_name") in control.to_names for control in controls):
            read = _box(item, controls, beside, 0 if item["to_name"] in paged else None)
            if isinstance(read, LabelledBox):
                boxes.append(read)
            else:
                left_out[read] += 1
        elif item.get("type") == "labels" and item.get("from_name") in partners:
            continue  # the other half of a rectangle
        else:
            left_out[f"{item.get('type') or 'something'} of {item.get('from_name')!r}"] += 1
    return tuple(boxes)


def _box(
    item: Mapping[str, Any], controls: Sequence[Control], beside: Mapping[tuple[Any, Any], str], page: int | None
) -> LabelledBox | str:
    """The box in one item, or why there is none; `page` is where it lies if it does not say.

    Turning the picture while labelling (`image_rotation`) leaves the coordinates as they were: seen in the browser.
    """
    value, index = item["value"], item.get("item_index")
    given = (beside.get((item.get("id"), control.labels_from_name), "") for control in controls)
    label = next(filter(None, given), "") or _first(value.get("rectanglelabels"))
    box = enclosing(value, item.get("original_width"), item.get("original_height"))
    if box is None:
        return "box without an area in the image"
    score = item.get("score")
    return LabelledBox(
        to_name=str(item["to_name"]),
        item_index=index if isinstance(index, int) else page,
        label=label,
        box=box,
        id=str(item.get("id") or ""),
        score=float(score) if isinstance(score, int | float) else None,
    )


def _first(labels: object) -> str:
    return str(labels[0]) if isinstance(labels, list) and labels else ""


def enclosing(value: Mapping[str, Any], width: object, height: object) -> Box | None:
    """The upright box around a rectangle in percent that is turned clockwise, in degrees, about its first corner.

    As fractions of the image, cut to it; None where nothing of it is inside. `width` and `height` are the image's,
    in pixels (turning is not the same in percent): without them it counts as square.
    """
    try:
        x, y, w, h = (float(value[name]) / 100 for name in ("x", "y", "width", "height"))
        turn = math.radians(float(value.get("rotation") or 0))
        wide, high = (
            float(side) if isinstance(side, int | float) and side > 0 else 1.0 for side in (width, height)
        )
    except (KeyError, TypeError, ValueError):
        return None
    if not all(map(math.isfinite, (x, y, w, h, turn))):
        return None
    across = (w * math.cos(turn), w * wide / high * math.sin(turn))
    down = (-h * high / wide * math.sin(turn), h * math.cos(turn))
    xs = (x, x + across[0], x + down[0], x + across[0] + down[0])
    ys = (y, y + across[1], y + down[1], y + across[1] + down[1])
    x0, x1 = max(min(xs), 0.0), min(max(xs), 1.0)
    y0, y1 = max(min(ys), 0.0), min(max(ys), 1.0)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
