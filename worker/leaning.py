"""Doubtful boxes lean towards where the heat map is hottest.

The hottest place lies in an object more often than the middle of a box that is likely to be wrong, and moving such
a box costs few right ones. How far a box leans depends on its score alone: the whole way below `Parameters.lean`,
and by (1 - score)² of it above.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.boxes import Floats
from worker.parameters import Parameters
from worker.parts import Found

_SHARPNESS = 8
"""Power of the heat in its centroid: the hottest place, without hanging on one cell."""


def placed(found: Sequence[Found], scores: Floats, images: Sequence[int], parameters: Parameters) -> Floats:
    """The boxes (B, 4) of `worker.drawing.draw`, with that of each image's first map leaning by its score.

    scores (B,) of `worker.scoring.score`; images (R,): the image of each row. Other boxes stay where they are:
    their scores say something else.
    """
    boxes = np.array([one.box for one in found], dtype=np.float64).reshape(-1, 4)
    if found and parameters.lean > 0:
        firsts = np.unique([images[one.row] for one in found], return_index=True)[1]
        heats = np.array([found[index].heat for index in firsts])
        boxes[firsts] = lean(boxes[firsts], heats, scores[firsts], parameters.lean)
    return boxes


def lean(boxes: Floats, heats: Floats, scores: Floats, below: float) -> Floats:
    """Boxes (N, 4) within the image, moved by their scores (N,) towards where their heat (N, g, g) is hottest.

    Below the score `below` a box is centred there; 0 moves nothing.
    """
    if below <= 0:
        return boxes
    way = np.where(scores < below, 1.0, (1.0 - scores) ** 2)[:, None]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    centres = centres + way * (_hottest(heats) - centres)
    return np.clip(np.concatenate([centres - half, centres + half], axis=1), 0.0, 1.0)


def _hottest(heats: Floats) -> Floats:
    """Where each map is hottest, (N, 2) as x and y in fractions of the image; the middle of one that is cold."""
    sharp = np.asarray(heats, dtype=np.float64) ** _SHARPNESS
    total = sharp.sum((1, 2))
    cells = [(np.arange(side) + 0.5) / side for side in sharp.shape[1:]]
    x, y = sharp.sum(1) @ cells[1], sharp.sum(2) @ cells[0]
    return np.where(total[:, None] > 0, np.stack([x, y], axis=1) / np.maximum(total, 1e-300)[:, None], 0.5)
