"""Which of the boxes that a person left was which of ours, and what the person did to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.corrections import Correction, LabelledBox
from worker.contract import Box

UNTOUCHED = 0.98
"""IoU from which a box counts as not moved: results carry rounded percentages, and hands tremble."""
RIGHT = 0.5
"""IoU from which a box of the right label was right, as in PASCAL VOC and the reports on data sets."""
SAME = 0.1
"""IoU from which two boxes may be one that was moved, where nothing else tells."""

ACCEPTED, MOVED, RELABELLED, DELETED, ADDED, SKIPPED = (
    "accepted",
    "moved",
    "relabelled",
    "deleted",
    "added",
    "skipped",
)
FATES = (ACCEPTED, MOVED, RELABELLED, DELETED, ADDED, SKIPPED)
"""`accepted` untouched, `moved` or resized under the same label, `relabelled` (moved or not), `deleted`; `added`
by the person; `skipped` with its task."""


@dataclass(frozen=True)
class Handled:
    """One box: ours, the person's, or both."""

    correction: Correction
    fate: str
    """One of `FATES`."""
    ours: LabelledBox | None
    theirs: LabelledBox | None
    iou: float = 0.0
    """Of the two; 0 where there is only one."""

    @property
    def label(self) -> str:
        """Label of our box, or of the person's where we had none."""
        box = self.ours or self.theirs
        return box.label if box else ""

    @property
    def score(self) -> float | None:
        """Of our box; None where it carried none."""
        return self.ours.score if self.ours else None

    @property
    def right(self) -> bool:
        """Whether our box had the right label and covered the person's."""
        return self.fate in (ACCEPTED, MOVED) and self.iou >= RIGHT


def handled(correction: Correction) -> list[Handled]:
    """What became of each box of a correction, picture by picture. Empty where no prediction of ours was shown."""
    if correction.prediction is None:
        return []
    ours = correction.prediction.boxes
    if correction.skipped:
        return [Handled(correction, SKIPPED, box, None) for box in ours]
    found = []
    for place in dict.fromkeys(box.place for box in (*ours, *correction.boxes)):
        mine = [box for box in ours if box.place == place]
        people = [box for box in correction.boxes if box.place == place]
        found += _picture(correction, mine, people)
    return found


def _picture(correction: Correction, ours: Sequence[LabelledBox], theirs: Sequence[LabelledBox]) -> list[Handled]:
    pairs = _pairs(ours, theirs)
    found = [_pair(correction, ours[one], theirs[other]) for one, other in pairs]
    mine, people = {one for one, _ in pairs}, {other for _, other in pairs}
    found += [Handled(correction, DELETED, box, None) for n, box in enumerate(ours) if n not in mine]
    found += [Handled(correction, ADDED, None, box) for n, box in enumerate(theirs) if n not in people]
    return found


def _pair(correction: Correction, ours: LabelledBox, theirs: LabelledBox) -> Handled:
    overlap = iou(ours.box, theirs.box)
    kept = ACCEPTED if overlap >= UNTOUCHED else MOVED
    fate = kept if ours.label == theirs.label else RELABELLED
    return Handled(correction, fate, ours, theirs, overlap)


def _pairs(ours: Sequence[LabelledBox], theirs: Sequence[LabelledBox]) -> list[tuple[int, int]]:
    """Positions of boxes that belong together: those of one id, then greedily those that overlap most, of the same
    label first where they overlap alike."""
    ids = {box.id: n for n, box in enumerate(theirs) if box.id}
    pairs = [(n, ids[box.id]) for n, box in enumerate(ours) if box.id in ids]
    candidates = sorted(
        (
            (-round(iou(one.box, other.box), 2), one.label != other.label, n, m)
            for n, one in enumerate(ours)
            for m, other in enumerate(theirs)
            if iou(one.box, other.box) >= SAME
        ),
    )
    mine, people = {n for n, _ in pairs}, {m for _, m in pairs}
    for _, _, n, m in candidates:
        if n not in mine and m not in people:
            pairs.append((n, m))
            mine.add(n)
            people.add(m)
    return pairs


def iou(one: Box, other: Box) -> float:
    """Intersection over union, in [0, 1]."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return across * down / (area - across * down)
