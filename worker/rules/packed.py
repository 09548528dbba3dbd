"""Convolutions and linear layers with weights laid out once for the processor (oneDNN), both ways.

Called the usual way, oneDNN rearranges the weights on every call; here they are rearranged when the network is
prepared. The backward of a stride-1 convolution is a convolution with flipped, transposed weights, so it gets the
same treatment, and the rule of the nonlinearity before it is applied while the result is still in the cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor

from worker.rules.linear import Convolution, FullyConnected

_OPS = torch.ops.mkldnn


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """oneDNN is there and computes in this format on this device."""
    return (
        device.type == "cpu"
        and dtype in (torch.float32, torch.bfloat16)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and all(
            hasattr(_OPS, name)
            for name in (
                "_convolution_pointwise",
                "_linear_pointwise",
                "_reorder_convolution_weight",
                "_reorder_linear_weight",
            )
        )
    )


@dataclass(frozen=True, eq=False)
class PackedConvolution(Convolution):
    """A convolution whose weights lie as oneDNN wants them. `weight` stays for the way back of strided ones."""

    packed: Tensor | None = None
    back: Tensor | None = None
    """Flipped and transposed, where the way back is itself a convolution."""

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return _convolve(x, self.packed, self.bias, self.padding, self.stride, self.dilation, self.groups, "none")

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        if self.back is None:
            return super().backward(signal, shapes)
        none = (1, 1)
        return (_convolve(signal, self.back, None, self._back_padding, none, self.dilation, self.groups, "none"),)

    @property
    def can_scale(self) -> bool:
        """`backward_scaled` may be called."""
        return self.back is not None

    def backward_scaled(self, signal: Tensor, factor: Tensor, *, clip: bool) -> Tensor:
        """`backward` times `factor`, with negative values set to zero if `clip`; in one step."""
        signal = signal.contiguous(memory_format=torch.channels_last)
        unary = "relu" if clip else None
        result: Tensor = _OPS._convolution_pointwise(
            signal,
            factor,
            self.back,
            None,
            self._back_padding,
            (1, 1),
            self.dilation,
            self.groups,
            "mul",
            None,
            unary,
            [],
            None,
        )
        return result

    @property
    def _back_padding(self) -> tuple[int, int]:
        return _back_padding(self)


def _convolve(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    padding: Any,
    stride: Any,
    dilation: Any,
    groups: int,
    then: str,
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    result: Tensor = _OPS._convolution_pointwise(x, weight, bias, padding, stride, dilation, groups, then, [], "")
    return result


def _back_padding(layer: Convolution) -> tuple[int, int]:
    height, width = layer.weight.shape[2:]
    return (
        layer.dilation[0] * (height - 1) - layer.padding[0],
        layer.dilation[1] * (width - 1) - layer.padding[1],
    )


def pack_convolution(layer: Convolution, input_shape: Sequence[int], output_shape: Sequence[int]) -> Convolution:
    """The layer with weights laid out for inputs of `input_shape` (N, C, H, W)."""
    packed = _OPS._reorder_convolution_weight(
        layer.weight, layer.padding, layer.stride, layer.dilation, layer.groups, list(input_shape)
    )
    back = None
    if layer.stride == (1, 1) and min(_back_padding(layer)) >= 0:
        flipped = transposed(layer.weight, layer.groups).contiguous(memory_format=torch.channels_last)
        back = _OPS._reorder_convolution_weight(
            flipped, _back_padding(layer), (1, 1), layer.dilation, layer.groups, list(output_shape)
        )
    fields = {item.name: getattr(layer, item.name) for item in dataclasses.fields(Convolution)}
    return PackedConvolution(**fields, packed=packed, back=back)


def transposed(weight: Tensor, groups: int) -> Tensor:
    """Weights of the convolution that goes back: inputs and outputs swapped in each group, kernels turned round."""
    grouped = torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flip(-1, -2)
    result: Tensor = grouped.flatten(0, 1)
    return result


@dataclass(frozen=True, eq=False)
class PackedFullyConnected(FullyConnected):
    """A linear layer with both ways laid out for oneDNN; `weight` is an empty stand-in that keeps the type."""

    packed: Tensor | None = None
    back: Tensor | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = _OPS._linear_pointwise(
            inputs[0].to(self.weight.dtype), self.packed, self.bias, "none", [], ""
        )
        return result

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        result: Tensor = _OPS._linear_pointwise(signal.to(self.weight.dtype), self.back, None, "none", [], "")
        return (result.to(self.outside),)


def pack_linear(layer: FullyConnected, rows: int) -> FullyConnected:
    """The layer with weights laid out for about `rows` inputs at a time."""
    packed = _OPS._reorder_linear_weight(layer.weight, rows)
    back = _OPS._reorder_linear_weight(layer.weight.t().contiguous(), rows)
    return PackedFullyConnected(layer.weight.new_empty(0), layer.bias, layer.outside, packed=packed, back=back)
