"""Linear layers: transparent to multipliers, which pass back as gradients do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from worker.rules.base import Transparent


@dataclass(frozen=True, eq=False)
class Convolution(Transparent):
    """2-D convolution with any stride, padding, dilation and groups."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def shape(self, *inputs: Tensor) -> Size:
        """From one channel: all of them are as large."""
        (x,) = inputs
        if x.dim() != 4 or x.shape[1] != self.weight.shape[1] * self.groups:
            return super().shape(x)
        one = F.conv2d(x[:, :1], self.weight[:1, :1], None, self.stride, self.padding, self.dilation)
        return Size((len(x), len(self.weight), *one.shape[2:]))

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        size = (signal.shape[0], *shapes[0][1:])
        like = signal.new_empty(1).expand(size)
        passed, _, _ = torch.ops.aten.convolution_backward(
            signal,
            like,
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            (0, 0),
            self.groups,
            (True, False, False),
        )
        return (passed,)


@dataclass(frozen=True, eq=False)
class Affine(Transparent):
    """Batch normalisation in inference: a scale and a shift of each channel, both of shape (C,)."""

    scale: Tensor
    shift: Tensor

    def _spread(self, value: Tensor, dimensions: int) -> Tensor:
        return value.reshape(-1, *(1,) * (dimensions - 2))

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return torch.addcmul(self._spread(self.shift, x.dim()), x, self._spread(self.scale, x.dim()))

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        return (signal * self._spread(self.scale, signal.dim()),)


@dataclass(frozen=True, eq=False)
class FullyConnected(Transparent):
    """A linear layer. It computes in its weight's type and answers in `outside`, the type of its neighbours."""

    weight: Tensor
    bias: Tensor | None
    outside: torch.dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def shape(self, *inputs: Tensor) -> Size:
        """Without reading the weights, which are large."""
        (x,) = inputs
        return Size((*x.shape[:-1], len(self.weight))) if x.shape[-1] == self.weight.shape[1] else super().shape(x)

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        return ((signal.to(self.weight.dtype) @ self.weight).to(self.outside),)
