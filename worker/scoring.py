"""What boxes are worth: the chance that each is right, of an image's first box and of those beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worker.boxes import Floats, iou
from worker.parameters import Parameters
from worker.parts import Found
from worker.regression import SMALLEST, certainty, chance, log_odds, signs

Integers = npt.NDArray[np.integer]

EXTRA = (
    "of a region, not of a whole map",
    "log of its class's probability, relative to the best class's",
    "log odds of the box of its whole map",
    "log of the region's heat, relative to the hottest region's",
    "log of the region's peak, relative to the map's",
    "log of the number of regions",
    "threshold that parts the regions",
    "log of the mean heat",
    "log area",
    "its square",
    "square of the overlap (IoU) with the image's first box",
)


def score(
    found: Sequence[Found], logits: Floats, images: Sequence[int], targets: Sequence[int], parameters: Parameters
) -> Floats:
    """A score (B,) in [0, 1] for every box of `worker.drawing.draw`, calibrated where the parameters say how.

    logits (N, C); images and targets (R,): the image and the class of each row, an image's best class first.
    """
    if not found:
        return np.zeros(0)
    mine, classes = [images[one.row] for one in found], [targets[one.row] for one in found]
    shares = shares_of(logits, images, targets)[[one.row for one in found]]
    if parameters.extra is None:
        sure = _sure(found, logits, mine, classes, parameters)
        return np.asarray(below_whole(found, sure, parameters.part_score) * shares**parameters.class_weight)
    whole = sure_of_whole(found, logits, images, targets, parameters)
    _, firsts, image = np.unique(mine, return_index=True, return_inverse=True)
    likely = chance(extra_signs(found, firsts[image], whole, shares), parameters.extra)
    return below_first(likely, firsts[image], whole)


def below_first(likely: Floats, firsts: Integers, whole: Floats) -> Floats:
    """Scores (B,) from those of `EXTRA`: the first box of an image keeps its own, and no other scores above it.

    Both are estimates, of different things: the box that stands for the image stays the first. firsts and whole are
    those of `extra_signs`.
    """
    return np.where(firsts == np.arange(len(firsts)), whole, np.minimum(likely, whole[firsts]))


def extra_signs(found: Sequence[Found], firsts: Integers, whole: Floats, shares: Floats) -> Floats:
    """What the score of a box looks at that is not its image's first: (B, 11), see `EXTRA`.

    firsts (B,): the place of its image's first box; whole (B,): the chance that the box of its row's whole map is
    right; shares (B,): the probability of its class, relative to that of the image's best class.
    """
    boxes = np.array([one.box for one in found]).reshape(-1, 4)
    parts = [one.part for one in found]
    areas = np.log(np.clip(boxes[:, 2:] - boxes[:, :2], SMALLEST, 1.0)).sum(1)
    overlap = iou(boxes, boxes)[np.arange(len(boxes)), firsts]
    columns = [
        [float(part is not None) for part in parts],
        np.log(np.maximum(shares, 1e-6)),
        log_odds(whole),
        np.log([part.weight if part else 1.0 for part in parts]),
        np.log([part.peak if part else 1.0 for part in parts]),
        np.log([part.among if part else 1.0 for part in parts]),
        [part.split if part else 0.0 for part in parts],
        np.log([float(one.heat.mean()) for one in found]),
        areas,
        areas**2,
        overlap**2,
    ]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def below_whole(found: Sequence[Found], sure: Floats, share: float) -> Floats:
    """Scores (B,) in which a box of one region stays below that of its row's whole map: the calibration knows whole
    maps only, and what is left of one beside other objects looks surer to it than it is."""
    capped, whole = sure.copy(), dict[int, float]()
    for place, one in enumerate(found):
        if one.part is None:
            whole[one.row] = float(sure[place])
        else:
            capped[place] = min(sure[place], whole[one.row]) * one.part.weight * share
    return capped


def shares_of(logits: Floats, images: Sequence[int], targets: Sequence[int]) -> Floats:
    """(R,) the probability of each row's class against that of its image's likeliest row: 1 for a single one."""
    own = np.asarray(logits, dtype=np.float64)[list(images), list(targets)]
    best: dict[int, float] = {}
    for image, value in zip(images, own, strict=True):
        best[image] = max(value, best.get(image, -np.inf))
    return np.asarray(np.exp(own - [best[image] for image in images]))


def sure_of_whole(
    found: Sequence[Found], logits: Floats, images: Sequence[int], targets: Sequence[int], parameters: Parameters
) -> Floats:
    """(B,) the chance that the box of each box's whole map is right."""
    whole = [one for one in found if one.part is None]
    rows = [one.row for one in whole]
    sure = _sure(whole, logits, [images[row] for row in rows], [targets[row] for row in rows], parameters)
    by_row = dict(zip(rows, sure.tolist(), strict=True))
    return np.array([by_row[one.row] for one in found])


def _sure(
    found: Sequence[Found], logits: Floats, images: Sequence[int], targets: Sequence[int], parameters: Parameters
) -> Floats:
    """(B,) the chance that each box is right, as if its map were of one object. `images` and `targets` are (B,)."""
    sure = certainty(logits, images, targets)
    if parameters.calibration is None:
        return np.asarray(1 / (1 + np.exp(-sure[:, 0])))  # the class's probability
    boxes, probes, heats = (np.array([getattr(one, name) for one in found]) for name in ("box", "probes", "heat"))
    return chance(signs(sure, boxes, probes, heats), parameters.calibration)
