"""What boxes are to reach: the true boxes of photos, several of one photo included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worker.boxes import Floats, iou
from worker.learning.study import Study

# How the weights are chosen: themselves chosen once, on efficientnet_lite0, and the same for every network.
CENTRE_SHARE, _CENTRE_WIDTH = 3.0, 0.05
RIGHT_SHARE, _RIGHT_WIDTH = 1.0, 0.1


def likeliest(study: Study) -> Floats:
    """One true box (N, 4) per photo, for the start: the one that the probes agree on most, else the largest."""
    chosen = []
    for truths, probes in zip(study.truths, study.probes, strict=True):
        shared = iou(probes, truths).mean(0)
        sizes = (truths[:, 2:] - truths[:, :2]).prod(1)
        chosen.append(truths[int(shared.argmax() if shared.max() > 0.05 else sizes.argmax())])
    return np.array(chosen)


@dataclass(frozen=True)
class Goals:
    """True boxes of photos, and their mirror images, as one tensor each."""

    boxes: Tensor
    """(N, M, 4); photos with fewer boxes repeat their first."""
    mirrored: Tensor

    @classmethod
    def of(cls, truths: Sequence[Floats]) -> Goals:
        """From the (M, 4) of each photo."""
        most = max(len(one) for one in truths)
        boxes = torch.tensor(np.array([np.concatenate([t, np.repeat(t[:1], most - len(t), 0)]) for t in truths]))
        mirrored = torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1)
        return cls(boxes, mirrored)


def worth(
    boxes: Tensor, truths: Tensor, *, centre_share: float = CENTRE_SHARE, right_share: float = RIGHT_SHARE
) -> Tensor:
    """What boxes (…, N, 4) are worth (…, N) against the best of each photo's true ones (N, M, 4), smooth enough to
    climb: IoU, IoU ≥ 0.5, and the centre within the object."""
    low = torch.maximum(boxes[..., None, :2], truths[..., :2])
    high = torch.minimum(boxes[..., None, 2:], truths[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1e-4).prod(-1)[..., None] + (
        truths[..., 2:] - truths[..., :2]
    ).prod(-1)
    fit = (shared / (areas - shared)).amax(-1)
    centre = (boxes[..., None, :2] + boxes[..., None, 2:]) / 2
    inside = torch.minimum(centre - truths[..., :2], truths[..., 2:] - centre).amin(-1).amax(-1)
    return fit + right_share * right(fit) + centre_share * torch.sigmoid(inside / _CENTRE_WIDTH)


def right(fit: Tensor) -> Tensor:
    """IoU ≥ 0.5, smooth enough to climb."""
    return torch.sigmoid((fit - 0.5) / _RIGHT_WIDTH)
