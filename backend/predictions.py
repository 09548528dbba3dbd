"""A worker's result as a Label Studio prediction.

A prediction's score is that of its most doubtful box, and 0 where nothing was found: sorting by score, or
uncertainty sampling, brings up first what a person most needs to look at.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from backend.labelling import LabelMap, Target
from worker.contract import Box, Detection, ImageResult, Result, digest

Prediction = dict[str, Any]
"""{result, score, model_version}, as Label Studio stores it."""
DIGITS = 4
"""Decimal places of percentages: a hundredth of a pixel in a photo 10,000 pixels wide."""


def to_prediction(result: Result, mapping: LabelMap) -> Prediction | None:
    """What Label Studio is told about a task.

    Boxes are in percent of the upright picture. Without any box it is a prediction too: looked, and found nothing.
    None where not one of the task's pictures could be used: nothing is stored, and the task is asked for again.
    """
    usable = [image for image in result.images if image.error is None and image.width > 0 and image.height > 0]
    if not usable:
        return None
    scores: list[float] = []
    items: list[dict[str, Any]] = []
    for image in usable:
        for detection, target in wanted(image, mapping):
            scores.append(_score(detection.score))
            items.extend(region(image, detection, target))
    return {"result": items, "score": min(scores, default=0.0), "model_version": result.model_version}


def wanted(image: ImageResult, mapping: LabelMap) -> Iterator[tuple[Detection, Target]]:
    """Detections that a control asks for, best first, within its score threshold and number of boxes."""
    drawn: Counter[str] = Counter()
    for detection in sorted(image.detections, key=lambda found: -_score(found.score)):
        target = mapping.target(image.image.to_name, detection.class_index)
        if target is None or _score(detection.score) < target.control.min_score:
            continue
        if drawn[target.control.from_name] < target.control.max_boxes and _percent(image, detection.box):
            drawn[target.control.from_name] += 1
            yield detection, target


def region(image: ImageResult, detection: Detection, target: Target) -> list[dict[str, Any]]:
    """The items of one box: one for RectangleLabels, two with the same id for Rectangle and Labels beside it.

    The id depends on nothing but where and what the box is: the same work gives the same ids.
    """
    geometry = _percent(image, detection.box)
    if geometry is None:
        return []
    ref = image.image
    common: dict[str, Any] = {
        "id": "bl" + digest([ref.to_name, ref.item_index, target.label, geometry], 10),
        "to_name": ref.to_name,
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": _score(detection.score),
    }
    if ref.item_index is not None:
        common["item_index"] = ref.item_index
    return [
        common | {"from_name": from_name, "type": kind, "value": {**geometry, "rotation": 0, **labels}}
        for from_name, kind, labels in _parts(target)
    ]


def _parts(target: Target) -> list[tuple[str, str, Mapping[str, list[str]]]]:
    control, labels = target.control, [target.label] if target.label is not None else []
    if control.labels_from_name is not None:
        return [
            (control.from_name, "rectangle", {}),
            (control.labels_from_name, "labels", {"labels": labels}),
        ]
    if control.bare:
        return [(control.from_name, "rectangle", {})]
    return [(control.from_name, "rectanglelabels", {"rectanglelabels": labels})]


def _percent(image: ImageResult, box: Box) -> dict[str, float] | None:
    """x, y, width, height in percent of the picture, cut to it; None where nothing is left."""
    if not all(map(math.isfinite, box)):
        return None
    x0, x1 = (round(100 * min(max(v / image.width, 0.0), 1.0), DIGITS) for v in (box[0], box[2]))
    y0, y1 = (round(100 * min(max(v / image.height, 0.0), 1.0), DIGITS) for v in (box[1], box[3]))
    if x1 <= x0 or y1 <= y0:
        return None
    return {"x": x0, "y": y0, "width": round(x1 - x0, DIGITS), "height": round(y1 - y0, DIGITS)}


def _score(score: float) -> float:
    """A score that JSON and Label Studio can carry: finite, in [0, 1]."""
    return round(min(max(score, 0.0), 1.0), 6) if math.isfinite(score) else 0.0
