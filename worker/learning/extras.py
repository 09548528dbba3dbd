"""The score of every box but an image's first, learned from photos in which all objects have their boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from worker.boxes import Floats, iou, select
from worker.images import Photo, to_tensor
from worker.learning.calibration import fit_calibration
from worker.learning.maps import Integers
from worker.localizer import Localizer
from worker.parameters import Calibration
from worker.parts import Found
from worker.regression import chance
from worker.scoring import below_first, extra_signs, shares_of, sure_of_whole

DECAY = 10.0
"""Chosen once, on efficientnet_lite0; between 3 and 30 nothing changes."""


@dataclass(frozen=True)
class Candidates:
    """All boxes that are found in one photo, its first box first."""

    boxes: Floats
    """(B, 4) in fractions of the photo."""
    signs: Floats
    """(B, 11), see `worker.scoring.EXTRA`."""
    first: float
    """The score of the first box."""


def candidates(localizer: Localizer, photos: Iterable[Photo], *, at_once: int = 8) -> Iterator[Candidates]:
    """Of each photo; without any heat there are (0, 4) boxes."""
    todo = iter(photos)
    while part := list(islice(todo, at_once)):
        inputs = torch.stack([to_tensor(photo, localizer.network.preprocessing) for photo in part])
        seen, _, found = localizer.draw(inputs, [None] * len(part), several=True)
        logits, images, targets = seen.logits.double().cpu().numpy(), seen.rows.tolist(), seen.targets.tolist()
        shares = shares_of(logits, images, targets)
        for image in range(len(part)):
            mine = [one for one in found if images[one.row] == image]
            whole = sure_of_whole(mine, logits, images, targets, localizer.parameters)
            yield Candidates(
                boxes=np.array([one.box for one in mine]).reshape(-1, 4),
                signs=extra_signs(mine, _only(mine), whole, shares[[one.row for one in mine]]),
                first=float(whole[0]) if mine else 0.0,
            )


def worthwhile(one: Candidates, truths: Floats) -> Floats:
    """(B,) 1 for boxes with IoU ≥ 0.5 with an object that the first box is not right about, else 0."""
    fit = iou(one.boxes, truths)
    if not fit.size:
        return np.zeros(len(one.boxes))
    taken = fit[0].argmax()
    if fit[0, taken] >= 0.5:
        fit[:, taken] = 0
    return np.asarray((fit.max(1) >= 0.5).astype(float))


def fit_extra(photos: Sequence[Candidates], truths: Sequence[Floats]) -> Calibration:
    """The weights, from all boxes but the first of each photo; truths (M, 4) of each."""
    right = [worthwhile(one, boxes)[1:] for one, boxes in zip(photos, truths, strict=True)]
    return fit_calibration(np.concatenate([one.signs[1:] for one in photos]), np.concatenate(right), DECAY)


def chosen(one: Candidates, extra: Calibration, least: float, overlap: float) -> list[int]:
    """Which boxes of a photo stay, best first, where all but the first need this score: as `Localizer` chooses."""
    if not len(one.boxes):
        return []
    scores = below_first(chance(one.signs, extra), _only(one.boxes), np.full(len(one.boxes), one.first))
    return select(one.boxes, scores, overlap=overlap, least=least)


def _only(boxes: Sequence[Found] | Floats) -> Integers:
    """`firsts` of `worker.scoring.extra_signs` where all boxes are of one photo."""
    return np.zeros(len(boxes), dtype=int)
