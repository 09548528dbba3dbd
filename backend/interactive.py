"""Smart tools: a click, or a rough rectangle, becomes the box of the object that is meant.

A click is answered with the box that lies around it: all boxes of the picture's maps are found once per label and
kept in Redis with the job's result, so that further clicks cost no network. Where no box lies around a click, the
network looks closer at one of nine overlapping quarters of the picture, which are kept as well: ten runs answer all
clicks on a picture for one label. A rough rectangle is tightened: the network looks at that part alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.labelling import Labelling, Target
from backend.plans import Reading
from backend.predictions import Prediction, region
from worker.contract import Box, Detection, ImageRef, ImageResult, Plan

log = logging.getLogger(__name__)

BOXES = 16
"""Most boxes of a picture that a click chooses from."""
AROUND = 0.25
"""Half the side of a click's surroundings, as a fraction of the picture; they lie as far apart."""
MARGIN = 0.15
"""How much of a rough rectangle's sides is added around it: people cut corners."""
SMALLEST = 0.02
"""Least side of a part that is looked at, as a fraction of the picture."""


@dataclass(frozen=True)
class Drawn:
    """What somebody drew: a point or a rectangle, as fractions of the upright picture."""

    to_name: str
    label: str | None
    box: Box
    """A point is a box without extent."""
    item_index: int | None = None

    @property
    def point(self) -> bool:
        """Whether it is a click."""
        return self.box[:2] == self.box[2:]


def drawn(context: Mapping[str, Any] | None) -> Drawn | None:
    """The last thing in an interactive request's context that Boxlift can answer; None where there is none."""
    results = context.get("result") if isinstance(context, Mapping) else None
    for item in reversed(results if isinstance(results, list) else []):
        found = _drawn(item) if isinstance(item, Mapping) else None
        if found is not None:
            return found
    return None


def _drawn(item: Mapping[str, Any]) -> Drawn | None:
    kind, value, to_name = item.get("type"), item.get("value"), item.get("to_name")
    if not isinstance(value, dict) or not isinstance(to_name, str):
        return None
    if item.get("is_positive") is False:
        return None  # it says where the object is not
    point = kind in ("keypoint", "keypointlabels")
    if not point and kind not in ("rectangle", "rectanglelabels"):
        return None
    sides = {"width": 0, "height": 0} if point else {}  # a click's width is how it is shown
    numbers = [{**value, **sides}.get(name) for name in ("x", "y", "width", "height")]
    if not all(isinstance(number, int | float) and 0 <= number <= 100 for number in numbers):
        return None
    x, y, width, height = (float(number or 0) / 100 for number in numbers)
    if not point and not (width > 0 and height > 0):
        return None
    page = item.get("item_index")
    return Drawn(
        to_name=to_name,
        label=_label(value, str(kind)),
        box=(x, y, min(x + width, 1.0), min(y + height, 1.0)),
        item_index=page if isinstance(page, int) and not isinstance(page, bool) else None,
    )


def _label(value: Mapping[str, Any], kind: str) -> str | None:
    for name in (kind, "labels"):
        labels = value.get(name)
        if isinstance(labels, list) and labels and isinstance(labels[0], str):
            return labels[0]
    return None


@dataclass(frozen=True)
class Question:
    """One look at one picture: what workers are asked, and for whose label."""

    drawn: Drawn
    image: ImageRef
    plan: Plan
    target: Target | None
    """Where the box goes; None lets the class decide."""


def questions(drawn: Drawn, images: Sequence[ImageRef], reading: Reading, label_config: str) -> Iterator[Question]:
    """What to ask, one after the other until there is an answer."""
    shown = [image for image in images if image.to_name == drawn.to_name]
    if drawn.item_index is not None:
        shown = [image for image in shown if image.item_index in (drawn.item_index, None)]
    if not shown or not reading.labelling.controls_of(drawn.to_name):
        return
    target = _target(drawn, reading.labelling)
    if drawn.label is not None and target is None:
        return  # a box of another label is not what somebody chose
    classes = _classes(target, drawn.to_name, reading)
    if classes == ():
        return
    tuning = reading.plan.tuning if reading.plan else None
    plan = Plan(label_config=label_config, classes=classes, max_boxes=BOXES, tuning=tuning)
    whole = Question(drawn, shown[0], plan, target)
    if drawn.point:
        yield whole
    yield replace(whole, image=replace(shown[0], region=_surroundings(drawn)))


def _target(drawn: Drawn, labelling: Labelling) -> Target | None:
    """The control that offers the label that somebody chose for drawing, or else one that needs no label."""
    controls = labelling.controls_of(drawn.to_name)
    for control in controls:
        for label in control.labels:
            if drawn.label is not None and drawn.label in (label.value, *label.names):
                return Target(control, label.value)
    return next((Target(control, None) for control in controls if control.bare), None)


def _classes(target: Target | None, to_name: str, reading: Reading) -> tuple[int, ...] | None:
    """Classes of the chosen label. All compete where no class reaches it: the person has said what it is."""
    if target is None:
        return reading.mapping.classes(to_name)
    own = reading.mapping.targets.get(to_name, {})
    found = tuple(index for index, other in own.items() if other.label == target.label)
    return found or None


def _surroundings(drawn: Drawn) -> Box:
    """The part to look at closer; the same place again is the same job, thus answered from what is kept."""
    x0, y0, x1, y1 = drawn.box
    if drawn.point:
        # The whole part lies inside the picture, and its middle nearer than AROUND to every click that it serves,
        # at the picture's edges excepted.
        x, y = (min(max(round(side / AROUND) * AROUND, AROUND), 1 - AROUND) for side in (x0, y0))
        return (x - AROUND, y - AROUND, x + AROUND, y + AROUND)
    dx, dy = (max(MARGIN * side, SMALLEST / 2) for side in (x1 - x0, y1 - y0))
    sides = (max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, 1.0), min(y1 + dy, 1.0))
    left, top, right, bottom = (round(side, 3) for side in sides)
    return (left, top, right, bottom)


def answer(question: Question, image: ImageResult, reading: Reading, version: str) -> Prediction | None:
    """The box that is meant, as a prediction; None where none fits."""
    best = _meant(question.drawn, image)
    if best is None:
        return None
    target = question.target or reading.mapping.target(image.image.to_name, best.class_index)
    items = region(image, best, target) if target is not None else []
    return {"result": items, "score": items[0]["score"], "model_version": version} if items else None


def _meant(drawn: Drawn, image: ImageResult) -> Detection | None:
    """A click means the smallest of the boxes around it, a rectangle the box that overlaps it most."""
    found = [item for item in image.detections if image.width > 0 and image.height > 0]
    if drawn.point:
        x, y = drawn.box[0] * image.width, drawn.box[1] * image.height
        around = [item for item in found if item.box[0] <= x <= item.box[2] and item.box[1] <= y <= item.box[3]]
        return min(around, key=lambda item: (_area(item.box), -item.score), default=None)
    x0, y0, x1, y1 = (side * size for side, size in zip(drawn.box, [image.width, image.height] * 2, strict=True))
    return max(
        (item for item in found if _overlap(item.box, (x0, y0, x1, y1)) > 0),
        key=lambda item: (_overlap(item.box, (x0, y0, x1, y1)), item.score),
        default=None,
    )


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    common = _area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    union = _area(one) + _area(other) - common
    return common / union if union > 0 else 0.0
