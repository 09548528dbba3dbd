"""Pooling: cross-max for maxima, transparent for means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from worker.rules.base import Method, Nonlinear, Record, Reference, Transparent
from worker.rules.blocks import Empty

Pair = tuple[int, int]

_FLOOR = 1e-30
"""Makes a quotient of two zeros one, which is the gradient."""


@dataclass(frozen=True)
class MaxPool(Nonlinear):
    """Max pooling with any kernel, stride, padding and dilation; windows may overlap.

    Cross-max: with m = max(out, out₀) the share m − out₀ is credited to the image's maximum and out − m to the
    reference's, so each window credits one of its inputs, its *winner*: the image's maximum where out ≥ out₀, else
    the reference's. The winner's multiplier, its *share*, is (out − out₀) / Δin in [0, 1]. An input in which image
    and reference agree has the local gradient as its multiplier instead: 1 if it is the image's maximum, also
    beside a winner.

    Inside a window inputs are counted row by row; the first of equal ones is the maximum. Record: (winner, share,
    first, beside), each shaped as the output: the counts of the winner and of the image's maximum, the share, and
    ones where the image's maximum has the gradient beside the winner.
    Signals are added up input by input, so nothing is lost where windows overlap.
    """

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def remember(self, x: Tensor) -> tuple[Tensor, Reference]:
        out, first = self._maximum(x)
        return out, (x, out, first)

    def record(
        self, x: Tensor, reference: Reference, *, overwrite: bool = False, empty: Empty = torch.empty_like
    ) -> tuple[Tensor, Record]:
        x0, out0, first0 = reference
        out, first = self._maximum(x)
        # Sums of products with zeros and ones instead of torch.where, which does not use vector instructions.
        won = torch.ge(out, out0, out=torch.empty_like(out))
        lost = 1 - won
        winner = (first * won).addcmul_(first0, lost)
        # The winner's input is the larger output's own maximum; what the other image has there must be looked up.
        other = self._look_up(x0, first)
        beside = torch.eq(other, out, out=torch.empty_like(out)).mul_(lost)
        other.mul_(won).addcmul_(self._look_up(x, first0), lost)
        high, low = torch.maximum(out, out0), torch.minimum(out, out0)
        wide = torch.promote_types(x.dtype, torch.float32)
        width = (high.to(wide) - other).add_(_FLOOR)
        share = (high.to(wide) - low).add_(_FLOOR).div_(width).to(x.dtype)
        return out, (winner, share, first, beside)

    def backward(self, method: Method, signal: Tensor, record: Record, shape: Size) -> Tensor:
        winner, share, first, beside = record
        if method == "deeplift":
            return self._spread(shape, (signal * share, winner), (signal * beside, first))
        return self._spread(shape, (signal, first))

    def _size(self, shape: Size | Sequence[int]) -> Pair:
        """Height and width of the output."""
        sizes = []
        for i in (0, 1):
            reach = self.dilation[i] * (self.kernel[i] - 1)
            room = shape[i - 2] + 2 * self.padding[i] - reach - 1
            size = (room + (self.stride[i] - 1 if self.ceil_mode else 0)) // self.stride[i] + 1
            if self.ceil_mode and (size - 1) * self.stride[i] >= shape[i - 2] + self.padding[i]:
                size -= 1  # the last window must start inside the input or its left padding
            sizes.append(size)
        return sizes[0], sizes[1]

    def _frame(self, shape: Size | Sequence[int]) -> tuple[int, int, int, int]:
        """Padding (left, right, top, bottom) after which every window lies inside."""
        ends = []
        for i, size in enumerate(self._size(shape)):
            need = (size - 1) * self.stride[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            ends.append((self.padding[i], max(0, need - shape[i - 2] - self.padding[i])))
        return (*ends[1], *ends[0])

    def _views(self, framed: Tensor, size: Pair) -> Iterator[Tensor]:
        """For each place in a window: the values that all windows have there, shaped as the output."""
        for dy in range(self.kernel[0]):
            for dx in range(self.kernel[1]):
                y, x = dy * self.dilation[0], dx * self.dilation[1]
                rows = slice(y, y + (size[0] - 1) * self.stride[0] + 1, self.stride[0])
                columns = slice(x, x + (size[1] - 1) * self.stride[1] + 1, self.stride[1])
                yield framed[..., rows, columns]

    def _framed(self, x: Tensor, fill: float) -> Tensor:
        frame = self._frame(x.shape)
        return F.pad(x, frame, value=fill) if any(frame) else x

    def _maximum(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Largest value of each window, and its count in the window (in a float type; the first of equal ones)."""
        size = self._size(x.shape)
        out: Tensor | None = None
        for count, view in enumerate(self._views(self._framed(x, -torch.inf), size)):
            if out is None:
                out = view.clone()
                first = torch.zeros_like(out, dtype=self._counting(x.dtype))
                larger = torch.empty_like(first)
                continue
            torch.gt(view, out, out=larger)
            torch.maximum(first, larger.mul_(count), out=first)  # counts grow, so a later maximum replaces it
            torch.maximum(out, view, out=out)
        assert out is not None  # noqa: S101 - a window has at least one place
        return out, first

    def _counting(self, dtype: torch.dtype) -> torch.dtype:
        """A type that holds each count exactly: bfloat16 does so up to 256."""
        exact = self.kernel[0] * self.kernel[1] <= 256
        return dtype if exact else torch.promote_types(dtype, torch.float32)

    def _look_up(self, x: Tensor, count: Tensor) -> Tensor:
        """The value at place `count` of each window; `x` may be one for all. Counts never name a padded place."""
        size = self._size(x.shape)
        batch = max(len(x), len(count))
        there = torch.empty_like(count)
        found = torch.zeros_like(count, dtype=x.dtype).expand(batch, *count.shape[1:]).clone()
        for place, view in enumerate(self._views(self._framed(x, 0), size)):
            found.addcmul_(view, torch.eq(count, place, out=there))
        return found

    def _spread(self, shape: Size, *parts: tuple[Tensor, Tensor]) -> Tensor:
        """Adds up, input by input, each signal at the place of its window that a count names."""
        signal, _ = parts[0]
        left, right, top, bottom = self._frame(shape)
        height, width = shape[-2:]
        framed = torch.zeros(
            (*signal.shape[:2], top + height + bottom, left + width + right),
            dtype=signal.dtype,
            device=signal.device,
        )
        if signal.is_contiguous(memory_format=torch.channels_last):
            framed = framed.contiguous(memory_format=torch.channels_last)
        size = (signal.shape[-2], signal.shape[-1])
        there = torch.empty_like(signal)
        for place, view in enumerate(self._views(framed, size)):
            for part, count in parts:
                view.addcmul_(part, torch.eq(count, place, out=there))
        return framed[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class AveragePool(Transparent):
    """Mean of each window."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return F.avg_pool2d(
            x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor
        )

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        like = signal.new_empty(1).expand(signal.shape[0], *shapes[0][1:])
        passed = torch.ops.aten.avg_pool2d_backward(
            signal,
            like,
            self.kernel,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor,
        )
        return (passed,)


@dataclass(frozen=True)
class AdaptiveAveragePool(Transparent):
    """Mean over windows that divide the input into a grid of the given size (None: as the input)."""

    size: tuple[int | None, int | None]

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return x if self._grid(x.shape) == tuple(x.shape[-2:]) else F.adaptive_avg_pool2d(x, self._grid(x.shape))

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        height, width = shapes[0][-2:]
        grid = self._grid(shapes[0])
        if grid == (height, width):
            return (signal,)
        size = (signal.shape[0], *shapes[0][1:])
        if grid == (1, 1):
            return ((signal / (height * width)).expand(size),)
        like = torch.zeros(size, dtype=signal.dtype, device=signal.device)
        return (torch.ops.aten._adaptive_avg_pool2d_backward(signal.contiguous(), like),)

    def _grid(self, shape: Size) -> Pair:
        return self.size[0] or shape[-2], self.size[1] or shape[-1]
