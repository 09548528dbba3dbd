"""What a new tuning takes over from the one in use: nothing that was learned goes because something else was.

Parameters are always fitted anew from the network's defaults, so that the same corrections give the same tuning
whatever was in use before. They replace those in use only where they are better on the same pictures, each measured
with weights that it had no part in; those in use have seen some of the pictures, so in doubt they stay.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.contract import Head, Tuning

if TYPE_CHECKING:
    from worker.boxes import Floats
    from worker.learning import Maps
    from worker.learning.tuning import Figures, Fit
    from worker.parameters import Parameters


@dataclass(frozen=True)
class Kept:
    """One half of a tuning, and why it is that one."""

    value: Any
    note: str = ""


def worth(corloc: float, mean_iou: float) -> float:
    """What boxes are worth: their overlap, and half of being right."""
    return mean_iou + corloc / 2


def parameters(learned: Fit | None, current: Tuning | None, maps: Sequence[Maps], truths: Sequence[Floats]) -> Kept:
    """Parameters to use, as a plain dict; None for the defaults."""
    fresh = json.loads(json.dumps(learned.parameters.to_dict())) if learned is not None and learned.better else None
    old = current.parameters if current is not None else None
    if old is None or old == fresh:
        return Kept(fresh)
    if learned is None or learned.before is None or learned.after is None:
        return Kept(old, "boxes stay as tuned before: too few pictures to tell whether that is still right")
    known = _readable(old)
    if known is None:
        return Kept(fresh, "what was tuned before cannot be read any more")
    if fresh is not None and learned.parameters.regression == known.regression:
        return Kept(fresh)  # the same boxes, and a score that more is known about
    now = _worth(known, maps, truths)
    if fresh is not None and _of(learned.after) > now:
        return Kept(fresh)
    if now >= _of(learned.before):
        return Kept(old, "boxes stay as tuned before: what was learned now is no better on these pictures")
    return Kept(fresh, "" if fresh else "boxes are the defaults' again, which fit these pictures better")


def head(learned: Head | None, current: Tuning | None, labels: Collection[str]) -> Kept:
    """The head to use; one in use stays as long as the labelling config has its labels."""
    old = current.head if current is not None else None
    if learned is not None or old is None:
        return Kept(learned)
    gone = [label for label in old.labels if label not in labels]
    if gone:
        return Kept(
            None, f"what was learned of labels goes: the labelling config has no {', '.join(gone)} any more"
        )
    return Kept(old, f"labels stay as learned before: {', '.join(old.labels)}")


def _of(figures: Figures) -> float:
    return worth(figures.corloc, figures.mean_iou)


def _readable(values: dict[str, Any]) -> Parameters | None:
    from worker.parameters import Parameters

    try:
        return Parameters.from_dict(values)
    except (TypeError, KeyError, ValueError):
        return None


def _worth(known: Parameters, maps: Sequence[Maps], truths: Sequence[Floats]) -> float:
    """What the boxes that these parameters draw are worth."""
    import numpy as np

    from worker.learning import Maps, overlaps, study
    from worker.learning.tuning import drawn

    photos = study(Maps.joined(maps), known, truths)
    fits = overlaps(drawn(photos, known), photos, np.arange(len(photos)))
    return worth(float((fits >= 0.5).mean()), float(fits.mean()))
