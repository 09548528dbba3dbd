"""Further classes whose logits count from the best of a network's own classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from worker.rules.base import Method, Nonlinear, Record, Reference
from worker.rules.blocks import Empty


class AboveBest(nn.Module):
    """(N, C + K) → (N, C + K): the largest of an image's first C values is added to its other K.

    A further class with the value 0 is as likely as the best of the network's own. So both kinds compete on equal
    terms in every photo, and the evidence for a further class is that for the best class and what sets it apart.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        """C, at least 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Values → values, same shape. Pooling is the form of a maximum that captum knows, too."""
        own = x[:, : self.classes]
        best = F.max_pool2d(own.unsqueeze(1).unsqueeze(1), (1, self.classes)).flatten(1)
        return torch.cat([own, x[:, self.classes :] + best], 1)


@dataclass(frozen=True)
class BestAdded(Nonlinear):
    """The rule of `AboveBest`: that of max pooling (cross-max) over one window of all C classes.

    Record: (winner, share, best, beside), (N, 1) each: the class that is credited, with which multiplier, the
    image's best class, and 1 where that has the gradient beside the winner, as image and reference agree in it.
    """

    classes: int

    def forward(self, x: Tensor) -> Tensor:
        own = x[:, : self.classes]
        return torch.cat([own, x[:, self.classes :] + own.amax(1, keepdim=True)], 1)

    def remember(self, x: Tensor) -> tuple[Tensor, Reference]:
        return self.forward(x), (x[:, : self.classes],)

    def record(
        self, x: Tensor, reference: Reference, *, overwrite: bool = False, empty: Empty = torch.empty_like
    ) -> tuple[Tensor, Record]:
        own, (own0,) = x[:, : self.classes], reference
        high, best = own.max(1, keepdim=True)
        high0, best0 = own0.max(1, keepdim=True)
        winner = torch.where(high >= high0, best, best0)
        change = own - own0
        width = change.gather(1, winner)
        even = width == 0  # then so is the change of the maximum, and the local gradient counts
        share = torch.where(even, 1.0, (high - high0) / width.masked_fill(even, 1.0))
        beside = (high < high0) & (change.gather(1, best) == 0)
        return self.forward(x), (winner, share.to(x.dtype), best, beside.to(x.dtype))

    def backward(self, method: Method, signal: Tensor, record: Record, shape: Size) -> Tensor:
        winner, share, best, beside = record
        further = signal[:, self.classes :]
        total = further.sum(1, keepdim=True)
        own = signal[:, : self.classes]
        if method == "deeplift":
            own = own.scatter_add(1, winner, total * share).scatter_add(1, best, total * beside)
        else:
            own = own.scatter_add(1, best, total)
        return torch.cat([own, further], 1)
