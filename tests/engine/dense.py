"""Slow twins of the rules: all multipliers of a layer written out as one matrix, (outputs, inputs) of an image."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

Twin = Callable[[Tensor, Tensor], Tensor]
"""Image and reference, (C, H, W) both → the matrix."""


def jacobian(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of a layer that takes batches, at one image."""
    matrix: Tensor = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0], x.contiguous())
    outputs = layer(x[None])[0].numel()
    return matrix.reshape(outputs, x.numel())


def secants(function: Callable[[Tensor], Tensor], slope: Callable[[float], float], x: Tensor, x0: Tensor) -> Tensor:
    """Diagonal of Δout / Δin, value by value."""
    diagonal = []
    for a, b in zip(x.flatten().tolist(), x0.flatten().tolist(), strict=True):
        rise = (function(torch.tensor(a, dtype=x.dtype)) - function(torch.tensor(b, dtype=x.dtype))).item()
        diagonal.append(slope(a) if a == b else rise / (a - b))
    return torch.diag(torch.tensor(diagonal, dtype=x.dtype))


def cross_max(pool: nn.MaxPool2d, x: Tensor, x0: Tensor) -> Tensor:
    """The cross-max rule, window by window, with both of its shares."""
    out = pool(x[None])[0]
    matrix = torch.zeros(out.numel(), x.numel(), dtype=x.dtype)
    for number, (channel, row, column) in enumerate(itertools.product(*map(range, out.shape))):
        places = [
            (channel, y, z) for y in _reach(row, pool, 0, x.shape[1]) for z in _reach(column, pool, 1, x.shape[2])
        ]
        first = max(places, key=lambda place: x[place].item())  # the first of equal ones
        first0 = max(places, key=lambda place: x0[place].item())
        high, low = x[first].item(), x0[first0].item()
        assert high == out[channel, row, column].item()
        top = max(high, low)
        for place in places:
            credit = (place == first) * (top - low) + (place == first0) * (high - top)
            change = (x[place] - x0[place]).item()
            gradient = float(place == first)
            matrix[number, _flat(place, x)] = credit / change if change else gradient
    return matrix


def _reach(number: int, pool: nn.MaxPool2d, axis: int, size: int) -> list[int]:
    kernel, stride, padding, dilation = (
        value if isinstance(value, int) else value[axis]
        for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    start = number * stride - padding
    return [place for place in (start + i * dilation for i in range(kernel)) if 0 <= place < size]


def _flat(place: tuple[int, int, int], x: Tensor) -> int:
    channel, row, column = place
    return (channel * x.shape[1] + row) * x.shape[2] + column


def batched(twin: Twin, images: Tensor, references: Tensor, signals: Tensor) -> Tensor:
    """signals (N, …) through each image's own matrix; one reference may serve all."""
    rows = []
    for i, (x, signal) in enumerate(zip(images, signals, strict=True)):
        matrix = twin(x, references[i if len(references) > 1 else 0])
        rows.append((signal.flatten() @ matrix).reshape(x.shape))
    return torch.stack(rows)
