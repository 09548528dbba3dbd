"""Nonlinearities that act on each value alone: y = f(x), multiplier = secant of f between reference and image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from worker.rules.base import Method, Nonlinear, Record, Reference
from worker.rules.blocks import Empty, Scratch, blocks


class Elementwise(Nonlinear):
    """Record: (secant, slope), both shaped as the input: Δout/Δin, and f′ at the image."""

    rising: ClassVar[bool] = True
    """f′ ≥ 0 everywhere, so that guided backpropagation may clip after the product as well as before."""

    def backward(self, method: Method, signal: Tensor, record: Record, shape: Size) -> Tensor:
        secant, slope = record
        match method:
            case "deeplift":
                return signal * secant
            case "guided":
                return signal.relu().mul_(slope)
            case "gradient":
                return signal * slope


class BySecant(Elementwise):
    """One that states its secant and its slope."""

    def remember(self, x: Tensor) -> tuple[Tensor, Reference]:
        return self.forward(x), (x,)

    def record(
        self, x: Tensor, reference: Reference, *, overwrite: bool = False, empty: Empty = torch.empty_like
    ) -> tuple[Tensor, Record]:
        out = x if overwrite else torch.empty_like(x)
        secant, slope = empty(x), empty(x)
        for part, m, s, y, x0 in blocks((x, secant, slope, out), reference):
            m.copy_(self.secant(part, x0))
            s.copy_(self.slope(part))
            y.copy_(self.forward(part))
        return out, (secant, slope)

    @abstractmethod
    def secant(self, x: Tensor, x0: Tensor) -> Tensor:
        """(f(x) − f(x0)) / (x − x0); f′(x) where both are equal."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """f′(x); at a kink the value from below."""


@dataclass(frozen=True)
class ReLU(Elementwise):
    """max(x, 0).

    The interval between `x0` and `x` is split at zero: the secant is the share of it that lies above. With
    high = max(x, x0, 0) and low = min(x, x0, −tiny) this is high / (high − low), in [0, 1]. Nothing cancels there,
    so the secant is as exact as its inputs even in bfloat16, and equal inputs give the gradient, by no threshold.
    The reference is kept as (max(x0, 0), min(x0, −tiny)).
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()

    def remember(self, x: Tensor) -> tuple[Tensor, Reference]:
        high = x.relu()
        return high, (high, x.clamp(max=-torch.finfo(x.dtype).tiny))

    def record(
        self, x: Tensor, reference: Reference, *, overwrite: bool = False, empty: Empty = torch.empty_like
    ) -> tuple[Tensor, Record]:
        out = x if overwrite else torch.empty_like(x)
        secant, slope = empty(x), empty(x)
        scratch = Scratch(x)
        for part, m, s, y, high0, low0 in blocks((x, secant, slope, out), reference):
            width = torch.minimum(part, low0, out=scratch.alike("width", part))
            torch.maximum(part, high0, out=m)
            torch.sub(m, width, out=width)
            m.div_(width)
            torch.gt(part, 0, out=s)
            torch.clamp_min(part, 0, out=y)
        return out, (secant, slope)


@dataclass(frozen=True)
class ReLU6(BySecant):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    def secant(self, x: Tensor, x0: Tensor) -> Tensor:
        return clamp_secant(x, x0, 0.0, 6.0)

    def slope(self, x: Tensor) -> Tensor:
        return clamp_slope(x, 0.0, 6.0)


@dataclass(frozen=True)
class SiLU(BySecant):
    """x · sigmoid(x)."""

    rising: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)

    def secant(self, x: Tensor, x0: Tensor) -> Tensor:
        return smooth_secant(self, x, x0)

    def slope(self, x: Tensor) -> Tensor:
        gate = x.sigmoid()
        return gate * (1 + x * (1 - gate))


def clamp_slope(x: Tensor, floor: float, ceiling: float) -> Tensor:
    """1 inside the interval, 0 on its borders and outside, in the type of `x`."""
    return torch.gt(x, floor, out=torch.empty_like(x)).mul_(torch.lt(x, ceiling, out=torch.empty_like(x)))


def clamp_secant(x: Tensor, x0: Tensor, floor: float, ceiling: float) -> Tensor:
    """Δout/Δin of clamp(x, floor, ceiling): the share of the interval between both that lies inside, in [0, 1].

    Equal inputs give the gradient: both parts of the quotient are then the smallest positive number, or zero above.
    """
    tiny = torch.finfo(x.dtype).tiny
    high, low = torch.maximum(x, x0), torch.minimum(x, x0)
    width = (high - low).add_(tiny)
    inside = high.clamp_(max=ceiling).sub_(low.clamp_(min=floor)).clamp_(min=0)
    return inside.add_(clamp_slope(x, floor, ceiling), alpha=tiny).div_(width)


def smooth_secant(layer: BySecant, x: Tensor, x0: Tensor) -> Tensor:
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
