"""An estimate of the time that drafts have saved, by a model that is stated and whose numbers are options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backend.review.matching import ACCEPTED, ADDED, MOVED, RELABELLED, UNTOUCHED, Handled


@dataclass(frozen=True)
class Costs:
    """Seconds of a person for one box."""

    draw: float = 25.5
    """Drawing one: median of Su, Deng & Fei-Fei, "Crowdsourcing annotations for visual object detection" (2012)."""
    check: float = 1.6
    """Looking at one and saying yes or no: Papadopoulos et al., "We don't need no bounding-boxes" (CVPR 2016)."""
    move: float = 10.0
    """Looking at one and pulling its sides: an assumption; measure yours."""
    relabel: float = 5.0
    """Looking at one and choosing another label: an assumption; measure yours."""


@dataclass(frozen=True)
class Savings:
    """What the model says."""

    without: float
    """Seconds to draw all boxes that people left."""
    with_drafts: float
    """Seconds to check, move and relabel ours, and to draw those that were added."""

    @property
    def saved(self) -> float:
        """Seconds; negative where drafts cost more than they saved."""
        return self.without - self.with_drafts

    @property
    def share(self) -> float:
        """Of the time without drafts; 0 where there was nothing to draw."""
        return self.saved / self.without if self.without else 0.0


def savings(boxes: Iterable[Handled], costs: Costs) -> Savings:
    """Time with and without drafts, over the boxes of tasks that were not skipped.

    Without drafts every box that a person left is drawn. With them an untouched or a deleted one is checked, one
    that was moved or relabelled costs that (or both), and one that was added is drawn.
    """
    without = with_drafts = 0.0
    for box in boxes:
        if box.fate in (ACCEPTED, MOVED, RELABELLED, ADDED):
            without += costs.draw
        match box.fate:
            case "accepted" | "deleted":
                with_drafts += costs.check
            case "moved":
                with_drafts += costs.move
            case "relabelled":
                with_drafts += costs.relabel + (costs.move if box.iou < UNTOUCHED else 0.0)
            case "added":
                with_drafts += costs.draw
    return Savings(without, with_drafts)
