"""The score of a project: the known one stretched and shifted; learned anew where none is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from worker.boxes import Floats
from worker.learning.calibration import fit_calibration, score_signs
from worker.learning.maps import Integers
from worker.learning.study import Study
from worker.parameters import Calibration, Parameters
from worker.regression import chance

if TYPE_CHECKING:
    import numpy.typing as npt

_ANEW = 30.0
"""Decay of a score that few photos teach: dozens of signs, and one label a photo."""
_STRETCH = 2.0
"""Photos' worth of evidence that the known score is neither stretched nor shifted."""
_TINY = 1e-6


def old_score(photos: Study, parameters: Parameters, boxes: Floats) -> Floats:
    """What the parameters give these boxes (N, 4), one for each photo, as a score (N,)."""
    if parameters.calibration is None:
        return photos.own
    return chance(score_signs(photos, np.arange(len(photos)), boxes), parameters.calibration)


def fit_score(
    photos: Study, known: Calibration | None, index: Integers, boxes: Floats, right: npt.NDArray[np.bool_]
) -> Calibration:
    """The score's weights for boxes (N, 4) of the photos `index` (N,), some of them right."""
    values = score_signs(photos, index, boxes)
    if known is None:
        return fit_calibration(values, right, _ANEW)
    odds = values @ np.array(known.weights) + known.bias
    sign = np.where(right, 1.0, -1.0)

    def cost(at: Floats) -> tuple[float, Floats]:
        stretch, shift = at
        margin = sign * (stretch * odds + shift)
        slope = -sign / (1 + np.exp(margin))
        loss = np.logaddexp(0.0, -margin).sum() + _STRETCH * ((stretch - 1) ** 2 + shift**2)
        steep = np.array([slope @ odds + 2 * _STRETCH * (stretch - 1), slope.sum() + 2 * _STRETCH * shift])
        return float(loss), steep

    stretch, shift = optimize.minimize(cost, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    weights = tuple(round(float(stretch * weight), 5) for weight in known.weights)
    return Calibration(weights, round(float(stretch * known.bias + shift), 5))


def log_loss(score: Floats, right: npt.NDArray[np.bool_]) -> Floats:
    """Of each score (N,): how surprised it is."""
    sure = np.clip(score, _TINY, 1 - _TINY)
    return np.asarray(-np.log(np.where(right, sure, 1 - sure)))
