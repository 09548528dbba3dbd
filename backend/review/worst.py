"""The pictures in which our boxes were worst, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backend.corrections import Correction, LabelledBox
from backend.review.matching import SKIPPED, Handled


@dataclass(frozen=True)
class Case:
    """One picture of one task."""

    correction: Correction
    place: tuple[str, int | None]
    """Image tag and page."""
    boxes: tuple[Handled, ...]
    badness: float
    """How much of its boxes was wrong, mean over them, from 0 (all accepted) to 1 (none was any good)."""

    @property
    def ours(self) -> list[LabelledBox]:
        """What we drew."""
        return [box.ours for box in self.boxes if box.ours]

    @property
    def theirs(self) -> list[LabelledBox]:
        """What the person left."""
        return [box.theirs for box in self.boxes if box.theirs]

    @property
    def words(self) -> str:
        """What the person did, in short."""
        return ", ".join(_words(box) for box in self.boxes)


def worst(boxes: Iterable[Handled], most: int) -> list[Case]:
    """Up to `most` pictures, worst first; among equally bad ones those of which we were surest.

    Skipped tasks are out, since nobody said what was right, and pictures without a fault.
    """
    pictures: dict[tuple[int, str, int | None], list[Handled]] = {}
    for box in boxes:
        drawn = box.ours or box.theirs
        if box.fate != SKIPPED and drawn is not None:
            pictures.setdefault((box.correction.task, *drawn.place), []).append(box)
    cases = [
        Case(part[0].correction, (tag, page), tuple(part), sum(map(_badness, part)) / len(part))
        for (_, tag, page), part in pictures.items()
    ]
    bad = [case for case in cases if case.badness > 0]
    return sorted(bad, key=lambda case: (-case.badness, -_surety(case), case.correction.task))[:most]


def _badness(box: Handled) -> float:
    if box.fate == "accepted":
        return 0.0
    return 1.0 - box.iou if box.fate == "moved" else 1.0


def _surety(case: Case) -> float:
    return max((box.score or 0.0 for box in case.ours), default=0.0)


def _words(box: Handled) -> str:
    name = box.label or "box"
    match box.fate:
        case "moved":
            return f"{name} moved (IoU {box.iou:.2f})"
        case "relabelled":
            return f"{name} relabelled {box.theirs.label if box.theirs else ''} (IoU {box.iou:.2f})"
        case fate:
            return f"{name} {fate}"
