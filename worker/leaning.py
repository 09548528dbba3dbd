"""The one box of an image leans towards where the heat map is hottest, if it is doubtful.

The hottest place lies in an object more often than the middle of a box that is likely to be wrong, and moving such
a box costs few right ones. How far a box leans depends on its score alone: the whole way below `Parameters.lean`,
and by (1 - score)² of it above. Where several boxes are wanted none leans: there it costs more than it gains.
"""

from __future__ import annotations

import numpy as np

from worker.boxes import Floats

_SHARPNESS = 8
"""Power of the heat in its centroid: the hottest place, without hanging on one cell."""


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
