"""Corrections as photos with true boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from backend.corrections import Correction
from backend.labelling import task_images
from backend.plans import Reading
from worker.boxes import Floats
from worker.contract import ImageRef, embedded_address


@dataclass(frozen=True)
class Example:
    """One picture of an annotated task, and where people say its objects are."""

    task: int
    image: ImageRef
    """Its address as jobs carry it."""
    classes: tuple[int, ...] | None
    """Those that compete in it; None for all."""
    boxes: Floats
    """(M, 4), M ≥ 1, in fractions of the upright image."""
    labels: tuple[str, ...]
    """(M,)"""


def examples(project: int, corrections: Iterable[Correction], reading: Reading) -> list[Example]:
    """Pictures with boxes, in the order of tasks. Skipped tasks, and pictures that nobody drew on, tell nothing of
    where a box has to be. Where no class reaches a tag's labels, all compete: the labels may be learned."""
    found = []
    for correction in corrections:
        if correction.skipped:
            continue
        drawn = defaultdict(list)
        for box in correction.boxes:
            drawn[box.place].append(box)
        for image in task_images(correction.data, reading.labelling):
            mine = drawn.get((image.to_name, image.item_index))
            if mine:
                address = embedded_address(project, correction.task, image.url)
                found.append(
                    Example(
                        correction.task,
                        ImageRef(address, image.to_name, image.item_index),
                        reading.mapping.classes(image.to_name) or None,
                        np.array([box.box for box in mine], dtype=np.float64),
                        tuple(box.label for box in mine),
                    )
                )
    return found
