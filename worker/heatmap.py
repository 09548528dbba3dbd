"""Maps to one heat map: resample, smooth, mask, mix. Pure functions on batches (R, h, w).

Resampling and smoothing are linear along each axis, so together they are one matrix per axis: a map M of any
size becomes A M Aᵀ on the grid. That costs the same on CPU and GPU, whatever the sizes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worker.parameters import Parameters

_TINY = 1e-12


def heat(maps: Mapping[str, Tensor], parameters: Parameters) -> Tensor:
    """The heat maps (R, grid, grid) in [0, 1] of R rows; a row without any evidence is 0 everywhere.

    `maps` holds, by the names of `parameters.sources`, contributions (R, h, w) summed over channels,
    of any size. Every row's maximum is 1 unless the row is empty.
    """
    return combine(prepare(maps, parameters), parameters)


def prepare(maps: Mapping[str, Tensor], parameters: Parameters) -> list[Tensor]:
    """Every source resampled, smoothed and normalised, not yet masked: (R, grid, grid) each."""
    parts = [of_part(maps[s.name].float(), s.part) for s in parameters.sources]
    return [
        normalise(smooth(part, parameters.grid, s.sigma)) for part, s in zip(parts, parameters.sources, strict=True)
    ]


def combine(sources: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Prepared sources to heat maps (R, grid, grid): mixed, masked, normalised."""
    return masked(mix(sources, [s.weight for s in parameters.sources], parameters.mix), parameters)


def masked(maps: Tensor, parameters: Parameters) -> Tensor:
    """Maps (R, grid, grid) under the border mask, every row's maximum 1 again."""
    return normalise(maps * border_mask(parameters.grid, parameters.border, parameters.border_kind).to(maps))


def smooth(maps: Tensor, grid: int, sigma: float) -> Tensor:
    """Resample (R, h, w) to (R, grid, grid) and blur with a Gaussian of `sigma` × side, reflected at the edges."""
    rows = _axis(maps.shape[-2], grid, sigma).to(maps)
    columns = _axis(maps.shape[-1], grid, sigma).to(maps)
    return rows @ maps @ columns.T


def normalise(maps: Tensor) -> Tensor:
    """Clip at 0 and divide every row by its maximum; a row without a positive value becomes 0."""
    clipped = maps.clamp_min(0.0)
    return clipped / clipped.amax((-2, -1), keepdim=True).clamp_min(_TINY)


def mix(maps: Sequence[Tensor], weights: Sequence[float], kind: str) -> Tensor:
    """Weighted mean of normalised maps, arithmetic or geometric.

    A map without any evidence has no say in the geometric mean, where it would silence all others.
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    parts = [normalise(one) for one in maps]
    if kind == "arithmetic":
        return torch.stack([one * share for one, share in zip(parts, shares, strict=True)]).sum(0)
    if kind == "geometric":
        some = [one.amax((-2, -1), keepdim=True) > 0 for one in parts]
        powers = [torch.where(has, one.pow(s), 1.0) for has, one, s in zip(some, parts, shares, strict=True)]
        return torch.stack(powers).prod(0) * torch.stack(some).any(0)
    raise ValueError(f"mix is {kind!r}: it must be arithmetic or geometric")


@functools.lru_cache(maxsize=32)
def border_mask(grid: int, border: float, kind: str) -> Tensor:
    """Weights (grid, grid) in [0, 1] that keep a few hot cells at the edge from blowing the box up."""
    centres = (torch.arange(grid, dtype=torch.float32) + 0.5) / grid
    if kind == "none":
        return torch.ones(grid, grid)
    if kind == "hard":
        inside = ((centres >= border) & (centres <= 1 - border)).float()
        return inside[:, None] * inside[None, :]
    if kind == "soft":
        squares = (2 * centres - 1).square() / 2
        return (1 - border * (squares[:, None] + squares[None, :])).clamp_min(0.0)
    raise ValueError(f"border_kind is {kind!r}: it must be soft, hard or none")


def of_part(maps: Tensor, part: str) -> Tensor:
    """What a source keeps of its contributions: the positive ones, or the magnitude of all. Raises ValueError."""
    if part == "positive":
        return maps.clamp_min(0.0)
    if part == "absolute":
        return maps.abs()
    raise ValueError(f"part is {part!r}: it must be positive or absolute")


@functools.lru_cache(maxsize=128)
def _axis(size: int, grid: int, sigma: float) -> Tensor:
    """The matrix (grid, size) that resamples one axis and then blurs it; its rows sum to 1."""
    return (_blur(grid, sigma) @ _resample(size, grid)).float()


def _resample(size: int, grid: int) -> Tensor:
    """Area means where the map is finer than the grid, linear interpolation where it is coarser."""
    if size >= grid:
        edges = torch.arange(grid + 1, dtype=torch.float64) * size / grid
        cells = torch.arange(size, dtype=torch.float64)
        overlap = torch.minimum(edges[1:, None], cells + 1) - torch.maximum(edges[:-1, None], cells)
        return overlap.clamp_min(0.0) * (grid / size)
    where = ((torch.arange(grid, dtype=torch.float64) + 0.5) * size / grid - 0.5).clamp(0, size - 1)
    return (1 - (where[:, None] - torch.arange(size, dtype=torch.float64)).abs()).clamp_min(0.0)


def _blur(grid: int, sigma: float) -> Tensor:
    if sigma <= 0:
        return torch.eye(grid, dtype=torch.float64)
    width = sigma * grid
    matrix = torch.zeros(grid, grid, dtype=torch.float64)
    cells = torch.arange(grid)
    for step in range(-math.ceil(4 * width), math.ceil(4 * width) + 1):
        reflected = (cells + step) % (2 * grid)
        reflected = torch.minimum(reflected, 2 * grid - 1 - reflected)
        matrix[cells, reflected] += math.exp(-0.5 * (step / width) ** 2)
    return matrix / matrix.sum(1, keepdim=True)
