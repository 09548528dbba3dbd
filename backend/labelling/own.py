"""Labels that a network has learned from a project's corrections: further classes, reached by the label itself."""

from __future__ import annotations

from collections.abc import Sequence

from backend.labelling.config import Labelling
from backend.labelling.matching import LabelMap, Target


def with_own_labels(mapping: LabelMap, labelling: Labelling, own: Sequence[str], first: int) -> LabelMap:
    """The mapping, with class `first` + k going to the label `own[k]` on every Image tag that offers it.

    Labels keep the classes that they have: what was learned competes with these under the same label. A label that
    the config no longer offers takes nothing, so that its class does not compete (on tags where the rest goes to a
    label, it competes as any other class does). Of several controls with the same label the first one gets the box.
    """
    targets = {tag: dict(found) for tag, found in mapping.targets.items()}
    labels = dict(mapping.labels)
    for index, name in enumerate(own, start=first):
        for image in labelling.drawn_images:
            taker = next(
                (
                    Target(control, label.value)
                    for control in labelling.controls_of(image.name)
                    for label in control.labels
                    if label.value == name
                ),
                None,
            )
            if taker is not None:
                targets.setdefault(image.name, {})[index] = taker
                labels[name] = tuple(sorted({*labels.get(name, ()), index}))
    return LabelMap(targets, mapping.rest, labels)
