"""The weights of the score, learned from boxes that were right or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from worker.boxes import Floats
from worker.learning.figures import overlaps
from worker.learning.maps import Integers
from worker.learning.refiner import fit_regression
from worker.learning.study import Study
from worker.parameters import Calibration
from worker.regression import regress, signs

if TYPE_CHECKING:
    import numpy.typing as npt

DECAY = 3.0
"""Chosen once, on efficientnet_lite0, and the same for every network."""
_BORDERLINE = 0.05
"""IoU within which a box is nearly right or nearly wrong: what falls on either side of 0.5 there is chance."""


def score_signs(study: Study, photos: Integers, boxes: Floats) -> Floats:
    """What the score looks at for one box (N, 4) of each of these photos: see `worker.regression.signs`."""
    return signs(study.sure[photos], boxes, study.probes[photos], study.heat[photos])


def fit_calibration(values: Floats, right: npt.NDArray[np.bool_] | Floats, decay: float = DECAY) -> Calibration:
    """Logistic regression with a little decay, on standardised signs (N, S), folded back.

    `right` (N,) says of each box whether it is right, or in [0, 1] how nearly (`nearly_right`).
    """
    mean, spread = values.mean(0), values.std(0) + 1e-6
    x, y = torch.tensor((values - mean) / spread), torch.tensor(right.astype(float))
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    steps = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        steps.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            x @ weights[1:] + weights[0], y, reduction="sum"
        )
        loss = loss + decay * weights[1:].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    steps.step(closure)  # type: ignore[no-untyped-call]
    learned = weights.detach().numpy()
    folded = learned[1:] / spread
    return Calibration(tuple(round(float(w), 5) for w in folded), round(float(learned[0] - folded @ mean), 5))


def held_out_calibration(study: Study, photos: Integers, goal: Floats, folds: int = 5) -> Calibration:
    """The score's weights, from boxes of photos that had no part in choosing the boxes' weights: those would look
    better than they are."""
    boxes = np.zeros((len(photos), 4))
    order = np.random.default_rng(0).permutation(len(photos))
    for fold in range(folds):
        held, rest = order[fold::folds], np.setdiff1d(order, order[fold::folds])
        boxes[held] = regress(study.probes[photos[held]], fit_regression(study, photos[rest], goal))
    return fit_calibration(score_signs(study, photos, boxes), nearly_right(overlaps(boxes, study, photos)))


def nearly_right(fit: Floats) -> Floats:
    """IoU (N,) → 0 for a wrong box, 1 for a right one, between them close to 0.5."""
    return np.asarray(1 / (1 + np.exp((0.5 - fit) / _BORDERLINE)))
