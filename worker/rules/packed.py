"""Convolutions and linear layers with weights laid out once for the processor (oneDNN), both ways.

Called the usual way, oneDNN rearranges the weights on every call; here they are rearranged when the network is
prepared. The backward of a stride-1 convolution is a convolution with flipped, transposed weights, so it gets the
same treatment, and the rule of the nonlinearity before it is applied while the result is still in the cache.

oneDNN adds up all products of an output one after the other, so its rounding errors grow with the number of input
channels, and DeepLIFT's secants of values near zero are only as exact as those values. In float32 the channels are
therefore summed in groups and then the groups, which costs next to nothing. bfloat16 has larger errors elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from worker.rules.linear import Convolution, FullyConnected

_OPS = torch.ops.mkldnn

_TERMS = 288
"""Most products that are added up one after the other in float32: 32 channels of a 3×3 kernel."""


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """oneDNN is there and computes in this format on this device: bfloat16 needs AVX-512 or newer."""
    return (
        device.type == "cpu"
        and dtype in (torch.float32, torch.bfloat16)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and (dtype == torch.float32 or bool(_OPS._is_mkldnn_bf16_supported()))
        and all(
            hasattr(_OPS, name)
            for name in (
                "_convolution_pointwise",
                "_convolution_pointwise_",
                "_linear_pointwise",
                "_reorder_convolution_weight",
                "_reorder_linear_weight",
            )
        )
    )


@dataclass(frozen=True, eq=False)
class PackedConvolution(Convolution):
    """A convolution whose weights lie as oneDNN wants them. `weight` stays for the way back of strided ones."""

    packed: tuple[Tensor, ...] = ()
    """One for each group of input channels whose sums are added up."""
    back: Tensor | None = None
    """Flipped and transposed, where the way back is itself a convolution."""

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        x = x.contiguous(memory_format=torch.channels_last)
        how = (self.padding, self.stride, self.dilation, self.groups)
        parts = x.chunk(len(self.packed), 1)
        out: Tensor = _OPS._convolution_pointwise(parts[0], self.packed[0], self.bias, *how, "none", [], "")
        for part, weight in zip(parts[1:], self.packed[1:], strict=True):
            _OPS._convolution_pointwise_.binary(out, part, weight, None, *how, "add", 1.0, None, [], None)
        return out

    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        if self.back is None:
            return super().backward(signal, shapes)
        signal = signal.contiguous(memory_format=torch.channels_last)
        how = (self._back_padding, (1, 1), self.dilation, self.groups)
        return (_OPS._convolution_pointwise(signal, self.back, None, *how, "none", [], ""),)

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


def _back_padding(layer: Convolution) -> tuple[int, int]:
    height, width = layer.weight.shape[2:]
    return (
        layer.dilation[0] * (height - 1) - layer.padding[0],
        layer.dilation[1] * (width - 1) - layer.padding[1],
    )


def pack_convolution(layer: Convolution, input_shape: Sequence[int], output_shape: Sequence[int]) -> Convolution:
    """The layer with weights laid out for inputs of `input_shape` (N, C, H, W)."""
    count, channels, *size = input_shape
    parts = _parts(layer)
    packed = tuple(
        _OPS._reorder_convolution_weight(
            weight.contiguous(memory_format=torch.channels_last),
            layer.padding,
            layer.stride,
            layer.dilation,
            layer.groups,
            [count, channels // parts, *size],
        )
        for weight in layer.weight.chunk(parts, 1)
    )
    back = None
    if layer.stride == (1, 1) and min(_back_padding(layer)) >= 0:
        flipped = transposed(layer.weight, layer.groups).contiguous(memory_format=torch.channels_last)
        back = _OPS._reorder_convolution_weight(
            flipped, _back_padding(layer), (1, 1), layer.dilation, layer.groups, list(output_shape)
        )
    fields = {item.name: getattr(layer, item.name) for item in dataclasses.fields(Convolution)}
    return PackedConvolution(**fields, packed=packed, back=back)


def _parts(layer: Convolution) -> int:
    """Into how many equal groups the input channels are divided, so that none has more than `_TERMS` products."""
    channels, kernel = layer.weight.shape[1], layer.weight[0, 0].numel()
    if layer.weight.dtype != torch.float32 or layer.groups > 1:
        return 1
    whole = [parts for parts in range(1, channels // 16 + 1) if channels % (parts * 16) == 0]  # whole vectors
    few = [parts for parts in whole if channels // parts * kernel <= _TERMS]
    return min(few, default=max(whole, default=1))


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
