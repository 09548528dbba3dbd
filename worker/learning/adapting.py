"""A refiner moved from one that is known towards the true boxes of few photos, many trials at once.

What is known counts as evidence: a trial pays for every change of the boxes that the known weights draw, so that
fifty photos move what they can tell about (boxes that are all too tight) and leave the rest. How much it pays is
chosen by cross-validation. A trial may also forget what is known, where there are photos enough.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worker.boxes import Floats, iou
from worker.heads.fitting import one_thread
from worker.learning.goals import Goals, likeliest, worth
from worker.learning.study import Study
from worker.parameters import Parameters, Regression
from worker.probes import UNION
from worker.regression import SMALLEST, regress, terms

_worth = functools.partial(worth, centre_share=0.5, right_share=0.5)
"""A person's box is the truth, so it is overlap that counts most."""
_STEPS, _RATE = 60, 0.03
_DECAY, _START = 0.3, 1000.0
_RIDGE, _SHIFT = 100.0, 2.0
"""Like `Trial.trust`, in photos: how much the weights themselves, and the constants, are held to what is known."""
_LEAST = 0.02
"""Directions in which photos differ less than this share of the strongest one's are left as they are."""
_CENTRE_UNIT, _SIDE_UNIT = 0.1, 0.3
"""Changes of a centre, and of the logarithm of a side, that cost alike."""
_MOST = 3
"""True boxes of a photo that are looked at: those nearest to the known weights' box."""


@dataclass(frozen=True)
class Trial:
    """One way of learning, on some of the photos."""

    photos: Floats
    """(N,) 1 for those that it learns from, else 0."""
    trust: float
    """How many photos' worth of evidence the known boxes are: `inf` moves and scales all boxes alike and nothing
    else, and `FORGET` learns anew, from weights that are 0."""


FORGET = -1.0


def known_regression(parameters: Parameters) -> Regression:
    """The refiner of these parameters; for those without one, the weights that draw their thresholded box."""
    if parameters.regression is not None:
        return parameters.regression
    count = _count(parameters)
    place = np.interp(math.log(parameters.threshold), np.log(UNION), np.arange(len(UNION)))
    weights = np.zeros(count)
    low = min(int(place), len(UNION) - 2)
    weights[low], weights[low + 1] = 1 - (place - low), place - low
    whole, none = tuple(map(float, weights)), (0.0,) * count
    return Regression(centre=whole, own_side=whole, other_side=none, down=0.0, width=0.0, height=0.0)


def _count(parameters: Parameters) -> int:
    from worker.probes import count

    return count(len(parameters.sources))


@one_thread()
def adapt(study: Study, known: Regression, trials: Sequence[Trial]) -> list[Regression]:
    """What each trial learns from the study's photos, starting from weights that are known.

    In double precision and one thread: sums in another order would be another model version.
    """
    return _Space(study, known).learn(trials)


class _Space:
    """The refiner's weights in units in which they are alike, for one study: K of the centre, 2K of the sides (own,
    other), and three constants."""

    def __init__(self, study: Study, known: Regression) -> None:
        x, y, width, height = (torch.tensor(part, dtype=torch.float64) for part in terms(study.probes))
        self.count = x.shape[1]
        self.unit = torch.cat([x, y]).std(0) + 1e-3
        self.mean, self.spread = torch.cat([width, height]).mean(0), torch.cat([width, height]).std(0) + 1e-3
        self.x, self.y = x / self.unit, y / self.unit
        width, height = (width - self.mean) / self.spread, (height - self.mean) / self.spread
        self.wide, self.tall = torch.cat([width, height], 1), torch.cat([height, width], 1)
        near = _nearest(study, regress(study.probes, known))
        goals = Goals.of(near)
        self.truths, self.mirrored = goals.boxes.double(), goals.mirrored.double()
        self.aim = torch.tensor(likeliest(study), dtype=torch.float64)
        centre, own, other = (torch.tensor(w).double() for w in (known.centre, known.own_side, known.other_side))
        constant = float((self.mean * (own + other)).sum())
        self.known = torch.cat(
            [
                centre * self.unit,
                own * self.spread,
                other * self.spread,
                torch.tensor([known.down, known.width + constant, known.height + constant]).double(),
            ]
        )

        self.axes = torch.block_diag(  # type: ignore[no-untyped-call]
            _axes(torch.cat([self.x, self.y]) / _CENTRE_UNIT),
            _axes(torch.cat([self.wide, self.tall]) / _SIDE_UNIT),
            torch.eye(3, dtype=torch.float64) * _SIDE_UNIT,
        )
        """(D, 3K + 3) the directions that weights move in: a step along each changes boxes by one unit at mean."""

    def learn(self, trials: Sequence[Trial]) -> list[Regression]:
        """Gradient descent on `goals.worth`, all trials side by side: they do not see each other."""
        share = torch.tensor(np.array([trial.photos / trial.photos.sum() for trial in trials]), dtype=torch.float64)
        trust = torch.tensor([trial.trust for trial in trials]).double()[:, None]
        anew, fixed = (trust == FORGET).double(), torch.isinf(trust).double()
        base = self.known * (1 - anew)
        for row, trial in enumerate(trials):
            if trial.trust == FORGET:
                base[row] = self._ridge(share[row])
        free = torch.ones(len(trials), self.axes.shape[0], dtype=torch.float64)
        free[:, :-3] = 1 - fixed
        photos = (share > 0).sum(1, keepdim=True)
        dear = torch.where((anew + fixed) > 0, 0.0, trust) / photos
        moved = torch.zeros_like(free, requires_grad=True)
        steps = torch.optim.Adam([moved], lr=_RATE)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(steps, _STEPS)
        for _ in range(_STEPS):
            steps.zero_grad()
            change = (moved * free) @ self.axes
            weights = base + change
            gain = sum(
                (_worth(self._draw(weights, sign), truths) * share).sum() / 2
                for sign, truths in ((1.0, self.truths), (-1.0, self.mirrored))
            )
            cost = (dear * share * self._change(change)).sum() + (anew * _DECAY * weights[:, :-3].square()).sum()
            cost = cost + (_RIDGE / photos * change[:, :-3].square()).sum()
            cost = cost + (_SHIFT / photos * moved[:, -3:].square()).sum()
            (cost - gain).backward()
            steps.step()
            slower.step()
        return [self._regression(row) for row in base + (moved.detach() * free) @ self.axes]

    def _ridge(self, share: Tensor) -> Tensor:
        """Weights that start from nothing: least squares towards one true box per photo, with a strong decay."""
        weight = share.sqrt()[:, None] * math.sqrt(float((share > 0).sum()))
        aim = self.aim
        to_x, to_y = (aim[:, 0] + aim[:, 2]) / 2 - 0.5, (aim[:, 1] + aim[:, 3]) / 2 - 0.5
        to_w, to_h = ((aim[:, 2 + k] - aim[:, k]).clamp_min(SMALLEST).log() for k in (0, 1))
        mean_w, mean_h = (share * to_w).sum(), (share * to_h).sum()
        two = torch.cat([weight, weight])
        centre = _solve(two * torch.cat([self.x, self.y]), two * torch.cat([to_x, to_y])[:, None])
        sides = _solve(
            two * torch.cat([self.wide, self.tall]), two * torch.cat([to_w - mean_w, to_h - mean_h])[:, None]
        )
        constants = [
            (share * (to_y - self.y @ centre)).sum(),
            (share * (to_w - self.wide @ sides)).sum(),
            (share * (to_h - self.tall @ sides)).sum(),
        ]
        return torch.cat([centre, sides, torch.stack(constants)])

    def _parts(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        return weights[:, : self.count], weights[:, self.count : -3]

    def _draw(self, weights: Tensor, sign: float) -> Tensor:
        """Boxes (T, N, 4) of T trials; `sign` -1 for the mirrored photos."""
        centre, sides = self._parts(weights)
        down, width, height = (weights[:, place, None] for place in (-3, -2, -1))
        cx, cy = 0.5 + sign * (centre @ self.x.T), 0.5 + centre @ self.y.T + down
        half_w, half_h = (sides @ self.wide.T + width).exp() / 2, (sides @ self.tall.T + height).exp() / 2
        return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], 2).clamp(0, 1)

    def _change(self, change: Tensor) -> Tensor:
        """How far (T, N) a change of the weights moves each box, apart from the constants."""
        centre, sides = self._parts(change)
        moved = (centre @ self.x.T).square() + (centre @ self.y.T).square()
        scaled = (sides @ self.wide.T).square() + (sides @ self.tall.T).square()
        return (moved / _CENTRE_UNIT**2 + scaled / _SIDE_UNIT**2) / 4

    def _regression(self, weights: Tensor) -> Regression:
        centre = weights[: self.count] / self.unit
        own, other = (part / self.spread for part in weights[self.count : -3].chunk(2))
        constant = float((self.mean * (own + other)).sum())
        down, width, height = (float(value) for value in weights[-3:])
        return Regression(
            centre=_rounded(centre),
            own_side=_rounded(own),
            other_side=_rounded(other),
            down=round(down, 5),
            width=round(width - constant, 5),
            height=round(height - constant, 5),
        )


def _nearest(study: Study, drawn: Floats) -> list[Floats]:
    """The few true boxes of each photo that a box can be meant for."""
    found = []
    for truths, box in zip(study.truths, drawn, strict=True):
        if len(truths) > _MOST:
            apart = np.abs(truths - box).sum(1) - 4 * iou(box, truths)[0]
            truths = truths[np.argsort(apart, kind="stable")[:_MOST]]
        found.append(truths)
    return found


def _axes(rows: Tensor) -> Tensor:
    """Principal directions (D, K) of rows (R, K), scaled so that a step along each changes values by 1."""
    _, strength, directions = torch.linalg.svd(rows / math.sqrt(len(rows)), full_matrices=False)
    kept = strength > _LEAST * strength[0]
    return torch.as_tensor(directions[kept] / strength[kept, None])


def _solve(a: Tensor, b: Tensor) -> Tensor:
    eye = torch.eye(a.shape[1], dtype=a.dtype)
    return torch.as_tensor(torch.linalg.solve(a.T @ a + _START * eye, a.T @ b))[:, 0]


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)
