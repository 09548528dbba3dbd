"""What a project's labelling config means for one model: its controls, the label of each class, and the plan."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

from backend.labelling import Labelling, LabelMap, match_labels, parse_config, task_images, with_own_labels
from worker.contract import ImageRef, Model, Plan
from worker.errors import LabellingError

log = logging.getLogger(__name__)

SHARED = 16
"""Least number of boxes to ask for where several tags draw on one picture; they cost hardly more than two."""


@dataclass(frozen=True)
class Reading:
    """A labelling config, read for one model."""

    labelling: Labelling
    mapping: LabelMap
    plan: Plan | None
    """What workers are asked for; None where nothing can be predicted, and `notes` say why."""

    def images(self, data: object) -> tuple[ImageRef, ...]:
        """The pictures of a task that anything can be found in: those of Image tags that some class reaches."""
        found = task_images(data, self.labelling)
        return tuple(image for image in found if self.mapping.classes(image.to_name) != ())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the project's owner should know, in sentences that say what to do."""
        unreachable = ", ".join(f'"{label}"' for label in self.mapping.unreachable)
        labels = (
            f"no class of the model reaches {unreachable}: add predicted_values with names of classes, "
            "or see `boxlift labels`"
        )
        return self.labelling.problems + ((labels,) if unreachable else ())


@functools.lru_cache(maxsize=256)
def read_config(label_config: str, model: Model, unmatched: str, tuning: str | None = None) -> Reading:
    """Read a labelling config for a model; its notes go to the log once. Never raises LabellingError.

    Where the last classes of the model are a project's own labels, these labels reach them. `tuning` is the version
    of the project's own tuning, if the model is that.
    """
    try:
        labelling = parse_config(label_config)
    except LabellingError as error:
        labelling = Labelling(problems=(str(error),))
    first = len(model.classes) - model.own
    mapping = match_labels(labelling, model.classes[:first], unmatched)
    if model.own:
        mapping = with_own_labels(mapping, labelling, model.classes[first:], first)
    reading = Reading(labelling, mapping, _plan(label_config, labelling, mapping, tuning))
    for note in reading.notes:
        log.warning("labelling config: %s", note)
    return reading


def _plan(label_config: str, labelling: Labelling, mapping: LabelMap, tuning: str | None) -> Plan | None:
    """One plan for all of a config's Image tags: the widest thresholds, each tag with its own classes."""
    classes = {image.name: mapping.classes(image.name) for image in labelling.drawn_images}
    if not any(some is None or some for some in classes.values()):
        return None
    first, *others = classes.values()
    every = sorted({index for some in classes.values() for index in some or ()})
    return Plan(
        label_config=label_config,
        classes=None if None in classes.values() else tuple(every),
        max_boxes=max(_boxes(labelling, image.name) for image in labelling.drawn_images),
        min_score=min(control.min_score for control in labelling.controls),
        classes_of=None if all(some == first for some in others) else classes,
        tuning=tuning,
    )


def _boxes(labelling: Labelling, to_name: str) -> int:
    """Most boxes that workers are asked for on an Image tag.

    Where several tags draw on it, these are more than all of them take: the best ones may all be of classes that
    go to one of them.
    """
    most = {control.from_name: control.max_boxes for control in labelling.controls_of(to_name)}
    return sum(most.values()) if len(most) == 1 else max(SHARED, sum(most.values()))
