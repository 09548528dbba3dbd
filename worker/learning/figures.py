"""How good boxes and scores are against true boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker.boxes import Floats, iou
from worker.learning.maps import Integers
from worker.learning.study import Study

if TYPE_CHECKING:
    import numpy.typing as npt


def overlaps(boxes: Floats, study: Study, photos: Integers) -> Floats:
    """IoU (N,) of one box (N, 4) of each of these photos with the nearest true one."""
    return np.array([iou(box, study.truths[i]).max() for box, i in zip(boxes, photos, strict=True)])


def centred(boxes: Floats, study: Study, photos: Integers) -> npt.NDArray[np.bool_]:
    """Whether each box's centre lies in a true box."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    pairs = zip(middles, (study.truths[i] for i in photos), strict=True)
    return np.array([((t[:, :2] <= m) & (m < t[:, 2:])).all(1).any() for m, t in pairs])


def reliability(score: Floats, right: npt.NDArray[np.bool_], bins: int = 10) -> Floats:
    """Mean score minus share of right boxes, in `bins` groups of equal size."""
    groups = np.array_split(np.argsort(score), bins)
    return np.array([score[group].mean() - right[group].mean() for group in groups])
