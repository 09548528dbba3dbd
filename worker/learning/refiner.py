"""The weights that make one box of the probe boxes, learned from true boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from worker.boxes import Floats
from worker.learning.goals import Goals, worth
from worker.learning.maps import Integers
from worker.learning.study import Study
from worker.parameters import Regression
from worker.regression import terms

# Chosen once, on efficientnet_lite0, and the same for every network.
_RIDGE = 1000.0
_DECAY = 0.3
_STEPS, _RATE = 100, 0.01


def fit_regression(study: Study, photos: Integers, goal: Floats) -> Regression:
    """The weights that suit these photos best.

    They start from ridge regression towards `goal` (N, 4), one true box per photo of the study, and are then moved
    by gradient descent on what counts (`goals.worth`), over the photos and their mirror images: left and right come
    out alike.
    """
    x, y, width, height = (torch.tensor(part) for part in terms(study.probes[photos]))
    unit = torch.cat([x, y]).std(0) + 1e-3
    mean, spread = torch.cat([width, height]).mean(0), torch.cat([width, height]).std(0) + 1e-3
    x, y, width, height = x / unit, y / unit, (width - mean) / spread, (height - mean) / spread
    wide, tall = torch.cat([width, height], 1), torch.cat([height, width], 1)
    aim = torch.tensor(goal[photos])
    to_x, to_y = (aim[:, 0] + aim[:, 2]) / 2 - 0.5, (aim[:, 1] + aim[:, 3]) / 2 - 0.5
    to_w, to_h = ((aim[:, 2 + k] - aim[:, k]).clamp_min(0.02).log() for k in (0, 1))
    centre = _ridge(torch.cat([x, y]), torch.cat([to_x, to_y]))
    sides = _ridge(torch.cat([wide, tall]), torch.cat([to_w - to_w.mean(), to_h - to_h.mean()]))
    shift = torch.stack([(to_y - y @ centre).mean(), (to_w - wide @ sides).mean(), (to_h - tall @ sides).mean()])
    learned = [centre.requires_grad_(), sides.requires_grad_(), shift.requires_grad_()]
    goals = Goals.of([study.truths[index] for index in photos])

    def draw(across: Tensor) -> Tensor:
        cx, cy = 0.5 + across @ centre, 0.5 + y @ centre + shift[0]
        half_w, half_h = (wide @ sides + shift[1]).exp() / 2, (tall @ sides + shift[2]).exp() / 2
        return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], 1).clamp(0, 1)

    steps = torch.optim.Adam(learned, lr=_RATE)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(steps, _STEPS)
    for _ in range(_STEPS):
        steps.zero_grad()
        gain = (worth(draw(x), goals.boxes) + worth(draw(-x), goals.mirrored)).mean() / 2
        loss = -gain + _DECAY * (centre.square().sum() + sides.square().sum())
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
        slower.step()
    own, other = (part.detach() / spread for part in sides.chunk(2))
    constant = float((mean * (own + other)).sum())
    down, add_w, add_h = shift.tolist()
    return Regression(
        centre=_rounded(centre.detach() / unit),
        own_side=_rounded(own),
        other_side=_rounded(other),
        down=round(down, 5),
        width=round(add_w - constant, 5),
        height=round(add_h - constant, 5),
    )


def _ridge(a: Tensor, b: Tensor) -> Tensor:
    return torch.as_tensor(torch.linalg.solve(a.T @ a + _RIDGE * torch.eye(a.shape[1], dtype=a.dtype), a.T @ b))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)
