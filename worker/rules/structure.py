"""Layers that move, join or add values: all transparent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from worker.rules.base import Transparent


@dataclass(frozen=True)
class Identity(Transparent):
    """Passes its input on; dropout in inference."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        return (signal,)


@dataclass(frozen=True)
class Reshape(Transparent):
    """Flatten: the dimensions from `start` to `end` of each image become one."""

    start: int = 1
    end: int = -1

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].flatten(self.start, self.end)

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        return (signal.reshape(signal.shape[0], *shapes[0][1:]),)


@dataclass(frozen=True)
class Addition(Transparent):
    """Sum of two activations of the same shape: the multiplier of the sum is that of both."""

    def forward(self, *inputs: Tensor) -> Tensor:
        a, b = inputs
        return a + b

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        return (signal, signal)


@dataclass(frozen=True)
class Concatenation(Transparent):
    """Activations behind each other along `dim`."""

    dim: int

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = torch.split(signal, [shape[self.dim] for shape in shapes], self.dim)
        return parts


@dataclass(frozen=True)
class Mean(Transparent):
    """Mean over dimensions behind the batch."""

    dims: tuple[int, ...]
    keepdim: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].mean(self.dims, self.keepdim)

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        rank = len(shapes[0])
        count = 1
        kept = list(shapes[0])
        for dim in self.dims:
            count *= shapes[0][dim]
            kept[dim % rank] = 1
        spread = (signal / count).reshape(signal.shape[0], *kept[1:])
        return (spread.expand(signal.shape[0], *shapes[0][1:]),)


@dataclass(frozen=True)
class ZeroPad(Transparent):
    """Zeros around each image: (left, right, top, bottom), as asymmetric "SAME" padding needs them."""

    padding: tuple[int, int, int, int]

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.pad(inputs[0], self.padding)

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        left, _, top, _ = self.padding
        height, width = shapes[0][-2:]
        return (signal[..., top : top + height, left : left + width],)
