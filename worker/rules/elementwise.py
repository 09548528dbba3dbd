"""Nonlinearities that act on each value alone: y = f(x), multiplier = secant of f between reference and image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from worker.rules.base import Method, Nonlinear, Record, Reference


class Elementwise(Nonlinear):
    """Record: (secant, slope), both shaped as the input: Δout/Δin, and f′ at the image."""

    def backward(self, method: Method, signal: Tensor, record: Record, shape: Size) -> Tensor:
        secant, slope = record
        match method:
            case "deeplift":
                return signal * secant
            case "guided":
                return signal.relu().mul_(slope)
            case "gradient":
                return signal * slope

    def remember(self, x: Tensor) -> tuple[Tensor, Reference]:
        return self.forward(x), (x,)

    def record(self, x: Tensor, reference: Reference, *, overwrite: bool = False) -> tuple[Tensor, Record]:
        (x0,) = reference
        return self.forward(x), (self.secant(x, x0), self.slope(x))

    @abstractmethod
    def secant(self, x: Tensor, x0: Tensor) -> Tensor:
        """(f(x) − f(x0)) / (x − x0); f′(x) where both are equal."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """f′(x); at a kink the value from below."""


@dataclass(frozen=True)
class ReLU(Elementwise):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()

    def secant(self, x: Tensor, x0: Tensor) -> Tensor:
        return relu_secant(x, x0)

    def slope(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)


@dataclass(frozen=True)
class ReLU6(Elementwise):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    def secant(self, x: Tensor, x0: Tensor) -> Tensor:
        return clamp_secant(x, x0, 0.0, 6.0)

    def slope(self, x: Tensor) -> Tensor:
        return ((x > 0) & (x < 6)).to(x.dtype)


@dataclass(frozen=True)
class SiLU(Elementwise):
    """x · sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)

    def secant(self, x: Tensor, x0: Tensor) -> Tensor:
        return smooth_secant(self, x, x0)

    def slope(self, x: Tensor) -> Tensor:
        gate = x.sigmoid()
        return gate * (1 + x * (1 - gate))


def relu_secant(x: Tensor, x0: Tensor) -> Tensor:
    """The ReLU's Δout/Δin between `x0` and `x`, in [0, 1].

    The interval between both values is split at zero: the secant is the share of it that lies above. With
    high = max(x, x0, 0) and low = min(x, x0, 0) this is high / (high − low), where nothing cancels, so the secant
    is as exact as its inputs even in bfloat16, and equal inputs give the gradient without a threshold.
    """
    high = torch.maximum(x, x0).clamp_(min=0)
    low = torch.minimum(x, x0).clamp_(max=-torch.finfo(x.dtype).tiny)
    return high.div_(low.neg_().add_(high))


def clamp_secant(x: Tensor, x0: Tensor, floor: float, ceiling: float) -> Tensor:
    """Δout/Δin of clamp(x, floor, ceiling): the share of the interval between both that lies inside."""
    high, low = torch.maximum(x, x0), torch.minimum(x, x0)
    width = high - low
    inside = (high.clamp(max=ceiling) - low.clamp(min=floor)).clamp_(min=0)
    slope = ((x > floor) & (x < ceiling)).to(x.dtype)
    return torch.where(width > 0, inside / width, slope)


def smooth_secant(layer: Elementwise, x: Tensor, x0: Tensor) -> Tensor:
    """Δout/Δin of a smooth function, in float32 or better.

    Where Δin is so small that rounding spoils the quotient the slope half way takes its place: its error is of the
    order of Δin², below that of the quotient.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x, x0, dtype = x.to(wide), x0.to(wide), x.dtype
    step = x - x0
    near = step.abs() <= torch.finfo(wide).eps ** (1 / 3) * x.abs().clamp(min=1)
    quotient = (layer.forward(x) - layer.forward(x0)) / torch.where(near, 1, step)
    return torch.where(near, layer.slope((x + x0) / 2), quotient).to(dtype)
