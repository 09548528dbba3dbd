"""One box from many probe boxes, and the chance that it is right: two small linear models.

The centre is a weighted sum of the probes' centres; the logarithms of width and height are weighted sums of those
of the probes. The same weights serve both axes; left and right are alike, above and below are not. The chance is
a logistic function of what tells clear cases from doubtful ones. The weights are chosen on photos with known boxes
(scripts/choose_parameters.py), for IoU rather than for squared error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worker.parameters import Calibration, Regression

Floats = npt.NDArray[np.floating]

SMALLEST = 0.02
"""Added to sides before the logarithm: nothing smaller is told apart."""


def terms(probes: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """What the regression sees of probe boxes (R, K, 4), (R, K) each: x and y of the centres, from the middle of
    the image, and the logarithms of width and height."""
    low, high = probes[..., :2], probes[..., 2:]
    centres = (low + high) / 2 - 0.5
    sides = np.log(np.maximum(high - low, 0.0) + SMALLEST)
    return centres[..., 0], centres[..., 1], sides[..., 0], sides[..., 1]


def regress(probes: Floats, model: Regression) -> Floats:
    """Boxes (R, 4), within the image, from probe boxes (R, K, 4).

    Raises ValueError for another K than the model's.
    """
    centre, own, other = (np.array(w) for w in (model.centre, model.own_side, model.other_side))
    if probes.shape[1] != len(centre):
        raise ValueError(
            f"the model wants {len(centre)} probe boxes, not {probes.shape[1]}: it is of other sources"
        )
    x, y, width, height = terms(probes)
    cx = 0.5 + x @ centre
    cy = 0.5 + y @ centre + model.down
    half_width = np.exp(width @ own + height @ other + model.width) / 2
    half_height = np.exp(height @ own + width @ other + model.height) / 2
    boxes = np.stack([cx - half_width, cy - half_height, cx + half_width, cy + half_height], axis=1)
    return np.asarray(np.clip(boxes, 0.0, 1.0))


def log_odds(chances: Floats) -> Floats:
    """Of chances in [0, 1]; those of 0 and 1 are finite."""
    inside = np.clip(chances, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def certainty(logits: Floats, rows: Sequence[int], targets: Sequence[int]) -> Floats:
    """How sure the classifier is, (R, 6): see `CERTAINTY`.

    logits (N, C); rows and targets (R,): the image and the class of each row.
    """
    logits = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    chances = shifted / shifted.sum(1, keepdims=True)
    entropy = -(chances * np.log(np.clip(chances, 1e-12, 1.0))).sum(1)
    index, own = np.asarray(rows, dtype=int), np.asarray(targets, dtype=int)
    others = logits[index]
    others[np.arange(len(index)), own] = -np.inf
    rival = others.max(1) if logits.shape[1] > 1 else logits[index, own]
    logit = logits[index, own]
    mean, spread = logits.mean(1)[index], logits.std(1)[index]
    return np.stack([log_odds(chances[index, own]), entropy[index], logit, logit - rival, mean, spread], axis=1)


CERTAINTY = (
    "log odds of the class",
    "entropy of all classes",
    "logit of the class",
    "its lead over the best other",
    "mean of all logits",
    "their spread",
)


def signs(sure: Floats, boxes: Floats, probes: Floats, heat: Floats) -> Floats:
    """What the score looks at, (R, 18 + K): `CERTAINTY`, `FORM`, then the area of each probe relative to the box's.

    sure (R, 6) of `certainty`; boxes (R, 4); probes (R, K, 4); heat (R, g, g). Probes that are much smaller than
    the box tell of small objects and of several ones, where boxes fail.
    """
    side = np.clip(boxes[:, 2:] - boxes[:, :2], SMALLEST, 1.0)
    area = np.log(side).sum(1)
    wander = ((probes[..., :2] + probes[..., 2:]) / 2).std(axis=1).sum(1)
    form = [
        area,
        area**2,
        _agreement(boxes, probes),
        heat.mean(axis=(1, 2)),
        wander,
        np.abs(np.log(side[:, 0] / side[:, 1])),
        # Left and right are alike, above and below are not.
        np.abs(boxes[:, 0] + boxes[:, 2] - 1) / 2,
        side[:, 0],
        boxes[:, 1],
        boxes[:, 3],
        boxes[:, 1] ** 2,
        boxes[:, 3] ** 2,
    ]
    _, _, width, height = terms(probes)
    return np.concatenate([sure, np.stack(form, axis=1), width + height - area[:, None]], axis=1)


FORM = (
    "log area",
    "its square",
    "agreement of the probes",
    "spread of the heat",
    "wandering centres",
    "shape",
    "distance from the middle",
    "width",
    "top",
    "bottom",
    "square of the top",
    "square of the bottom",
)


def chance(values: Floats, model: Calibration) -> Floats:
    """The estimated chance (R,) that each box is right (IoU ≥ 0.5), from `signs`."""
    return np.asarray(1 / (1 + np.exp(-(values @ np.array(model.weights) + model.bias))))


def _agreement(boxes: Floats, probes: Floats) -> Floats:
    """Mean IoU (R,) of every box with its probes."""
    low = np.maximum(boxes[:, None, :2], probes[..., :2])
    high = np.minimum(boxes[:, None, 2:], probes[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    own = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)[:, None]
    others = np.clip(probes[..., 2:] - probes[..., :2], 0, None).prod(-1)
    return np.asarray((shared / np.maximum(own + others - shared, 1e-9)).mean(1))
