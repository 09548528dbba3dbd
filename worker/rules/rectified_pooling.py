"""ReLU followed by 2×2 max pooling as one layer: the five such places of a VGG take most of its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from worker.rules.base import Method, Nonlinear, Record, Reference
from worker.rules.blocks import BLOCK, Empty, Scratch

_FLOOR = 1e-30
"""Keeps quotients away from 0/0 and, unlike the smallest float, from slow subnormal results."""


@dataclass(frozen=True)
class RectifiedMaxPool(Nonlinear):
    """max(x, 0) over windows of 2×2 that do not overlap; height and width are even.

    The multiplier of both steps together at a window's winner (see `MaxPool`) is Δout / Δx there: the inner Δ
    cancels. It is 1 at an image's maximum that equals the reference there, and zero elsewhere. As windows do not
    overlap it is one factor for each input. Record: (factor, mask), both shaped as the input; the mask is 1 at the
    image's maximum where that is positive.
    The reference is kept as (out₀, x₀, its mask).
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.max_pool2d(x, 2).relu_()

    def remember(self, x: Tensor) -> tuple[Tensor, Reference]:
        x = x.contiguous(memory_format=torch.channels_last)
        out, mask, scratch = self._output(x), torch.empty_like(x), Scratch(x)
        for rows in _row_blocks(x, out):
            _forward(scratch, *rows(x, out, mask))
        return out, (out, x, mask)

    def record(
        self, x: Tensor, reference: Reference, *, overwrite: bool = False, empty: Empty = torch.empty_like
    ) -> tuple[Tensor, Record]:
        x = x.contiguous(memory_format=torch.channels_last)
        out = self._output(x)
        factor, mask, scratch = empty(x), empty(x), Scratch(x)
        for rows in _row_blocks(x, out):
            _forward(scratch, *rows(x, out, mask))
            _cross_max(scratch, *rows(x, out, mask, factor, *reference))
        return out, (factor, mask)

    def backward(self, method: Method, signal: Tensor, record: Record, shape: Size) -> Tensor:
        factor, mask = record
        if method == "guided":
            signal = signal.relu()
        result = torch.empty_like(factor)
        spread = signal.permute(0, 2, 3, 1)[:, :, None, :, None]
        torch.mul(_windows(_rows(factor if method == "deeplift" else mask)), spread, out=_windows(_rows(result)))
        return result

    def _output(self, x: Tensor) -> Tensor:
        size = (x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2)
        return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last layout as a dense (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _windows(rows: Tensor) -> Tensor:
    """(N, H, W, C) as (N, H/2, 2, W/2, 2, C)."""
    count, height, width, channels = rows.shape
    return rows.view(count, height // 2, 2, width // 2, 2, channels)


class _Slice:
    """Takes the same images and rows from tensors of the input's, or the output's, height."""

    def __init__(self, image: slice, start: int, stop: int, height: int) -> None:
        self.image, self.start, self.stop, self.height = image, start, stop, height

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        taken = []
        for x in tensors:
            scale = 1 if x.shape[2] == self.height else 2
            rows = _rows(x if len(x) == 1 else x[self.image])
            taken.append(rows[:, self.start * scale : self.stop * scale])
        return taken


def _row_blocks(x: Tensor, out: Tensor) -> Iterator[_Slice]:
    count, channels, height, width = x.shape
    if x.device.type != "cpu":
        yield _Slice(slice(None), 0, height // 2, height // 2)
        return
    step = max(1, BLOCK // (2 * width * channels))
    for i in range(count):
        for start in range(0, height // 2, step):
            yield _Slice(slice(i, i + 1), start, min(start + step, height // 2), height // 2)


def _forward(scratch: Scratch, x: Tensor, out: Tensor, mask: Tensor) -> None:
    """Fills `out` with the rectified maxima and `mask` with ones where they come from."""
    pairs = x.unflatten(2, (-1, 2))  # type: ignore[no-untyped-call]  # (n, 2k, w, 2, C)
    left, right = pairs.select(3, 0), pairs.select(3, 1)
    wider = torch.maximum(left, right, out=scratch("wider", left.shape))
    from_right = torch.gt(right, left, out=scratch("from right", left.shape)).unflatten(1, (-1, 2))  # type: ignore[no-untyped-call]
    upper, lower = wider.unflatten(1, (-1, 2)).unbind(2)  # type: ignore[no-untyped-call]
    torch.maximum(upper, lower, out=out)
    out.clamp_(min=0)
    positive = torch.gt(out, 0, out=scratch("positive", out.shape))
    source = scratch("source", from_right.shape)  # (n, k, 2, w, C): which of both rows
    above, below = source.unbind(2)
    torch.gt(lower, upper, out=below)
    below.mul_(positive)
    torch.sub(positive, below, out=above)
    place = _windows(mask)
    torch.mul(source, from_right, out=place.select(4, 1))
    torch.sub(source, place.select(4, 1), out=place.select(4, 0))


def _cross_max(
    scratch: Scratch,
    x: Tensor,
    out: Tensor,
    mask: Tensor,
    factor: Tensor,
    out0: Tensor,
    x0: Tensor,
    mask0: Tensor,
) -> None:
    """Fills `factor` with |Δout| / |Δx| at each window's winner: the image's maximum where out ≥ out₀.

    Beside a winner the image's maximum has the gradient, 1, if the reference has the same value there.
    """
    change = torch.sub(out, out0, out=scratch("change", out.shape))
    size = torch.abs(change, out=scratch("size", out.shape)).add_(_FLOOR)
    won = torch.ge(change, 0, out=change).mul_(size)
    lost = torch.sub(size, won, out=scratch("lost", out.shape))
    width = torch.sub(x, x0, out=scratch("width", x.shape)).abs_()
    # Credited where out < out₀: the reference's maximum, and the image's where nothing changed.
    losers = torch.eq(width, 0, out=scratch("losers", x.shape))
    torch.addcmul(mask0, mask, losers, out=losers)
    windows = _windows(width)
    # At a winner |Δx| ≥ |Δout|; where both are zero, or Δx alone is, the quotient is 1, the gradient.
    torch.maximum(windows, _spread(size), out=windows)
    target = _windows(factor)
    torch.mul(_windows(mask), _spread(won), out=target)
    target.addcmul_(_windows(losers), _spread(lost))
    factor.div_(width)


def _spread(rows: Tensor) -> Tensor:
    """(n, k, w, C) to every place of its window."""
    return rows[:, :, None, :, None]
