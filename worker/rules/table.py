"""The table of rules: which layer of a network is bound by which rule.

`bind_module` and `bind_call` answer None for what the table lacks; the caller, who knows where in the network it
stands, raises the error that names it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.rules.above_best import AboveBest, BestAdded
from worker.rules.base import Layer
from worker.rules.elementwise import ReLU, ReLU6, SiLU
from worker.rules.linear import Affine, Convolution, FullyConnected
from worker.rules.pooling import AdaptiveAveragePool, AveragePool, MaxPool
from worker.rules.structure import Addition, Concatenation, Identity, Mean, Reshape, ZeroPad


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of what torch takes as one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _convolution(m: nn.Conv2d) -> Layer | None:
    if m.padding_mode != "zeros":
        return None
    if m.padding == "same":
        # Stride is 1 there. Where an even kernel needs more on one side this is no padding that a rule has.
        reach = [d * (k - 1) for d, k in zip(pair(m.dilation), pair(m.kernel_size), strict=True)]
        if any(total % 2 for total in reach):
            return None
        padding = (reach[0] // 2, reach[1] // 2)
    else:
        padding = (0, 0) if isinstance(m.padding, str) else pair(m.padding)
    return Convolution(
        m.weight.detach(),
        None if m.bias is None else m.bias.detach(),
        pair(m.stride),
        padding,
        pair(m.dilation),
        m.groups,
    )


def _linear(m: nn.Linear) -> Layer:
    return FullyConnected(m.weight.detach(), None if m.bias is None else m.bias.detach(), m.weight.dtype)


def _batch_norm(m: nn.BatchNorm2d) -> Layer | None:
    if m.running_mean is None or m.running_var is None:
        return None  # without running statistics the images of a batch depend on each other
    wide = torch.float64
    scale = (m.running_var.detach().to(wide) + m.eps).rsqrt()
    if m.weight is not None:
        scale = scale * m.weight.detach().to(wide)
    shift = -m.running_mean.detach().to(wide) * scale
    if m.bias is not None:
        shift = shift + m.bias.detach().to(wide)
    return Affine(scale, shift)


def _max_pool(m: nn.MaxPool2d) -> Layer | None:
    if m.return_indices:
        return None
    return MaxPool(
        pair(m.kernel_size),
        pair(m.stride or m.kernel_size),
        pair(m.padding),
        pair(m.dilation),
        bool(m.ceil_mode),
    )


def _average_pool(m: nn.AvgPool2d) -> Layer:
    return AveragePool(
        pair(m.kernel_size),
        pair(m.stride or m.kernel_size),
        pair(m.padding),
        bool(m.ceil_mode),
        bool(m.count_include_pad),
        m.divisor_override,
    )


def _adaptive(size: Any) -> Layer:
    return AdaptiveAveragePool((size, size) if isinstance(size, int) else (size[0], size[1]))


def _zero_pad(m: nn.ZeroPad2d) -> Layer | None:
    left, right, top, bottom = m.padding
    return ZeroPad((left, right, top, bottom)) if min(m.padding) >= 0 else None


MODULES: Mapping[type[nn.Module], Callable[[Any], Layer | None]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda m: ReLU(),
    nn.ReLU6: lambda m: ReLU6(),
    nn.SiLU: lambda m: SiLU(),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: lambda m: _adaptive(m.output_size),
    nn.Flatten: lambda m: Reshape(m.start_dim, m.end_dim) if m.start_dim >= 1 else None,
    nn.Dropout: lambda m: Identity(),
    nn.Dropout2d: lambda m: Identity(),
    nn.Identity: lambda m: Identity(),
    nn.ZeroPad2d: _zero_pad,
    AboveBest: lambda m: BestAdded(m.classes),
}
"""Exact module types; a subclass may compute anything, so it is looked into instead."""


def bind_module(module: nn.Module) -> Layer | None:
    """The layer for a module in inference mode, or None where the table has no rule for it."""
    bind = MODULES.get(type(module))
    return None if bind is None else bind(module)


def _sum(a: Any, b: Any, *, alpha: float = 1) -> Layer | None:
    return Addition() if isinstance(a, Tensor) and isinstance(b, Tensor) and alpha == 1 else None


def _cat(tensors: Any, dim: int = 0) -> Layer | None:
    return Concatenation(dim) if dim not in (0, -tensors[0].dim()) else None


def _flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Layer | None:
    return Reshape(start_dim, end_dim) if start_dim >= 1 else None


def _view(x: Tensor, *size: Any) -> Layer | None:
    shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    flat = len(shape) == 2 and tuple(shape) in ((x.shape[0], -1), (x.shape[0], x[0].numel()), (-1, x[0].numel()))
    return Reshape() if flat else None


def _mean(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Layer | None:
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    return Mean(dims, keepdim) if dims and 0 not in dims and -x.dim() not in dims and dtype is None else None


def _max_pool_call(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Layer | None:
    if return_indices:
        return None
    return MaxPool(pair(kernel_size), pair(stride or kernel_size), pair(padding), pair(dilation), ceil_mode)


def _average_pool_call(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Layer:
    return AveragePool(
        pair(kernel_size),
        pair(stride or kernel_size),
        pair(padding),
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def _identity(x: Any, *args: Any, **kwargs: Any) -> Layer:
    return Identity()


CALLS: Mapping[Any, Callable[..., Layer | None]] = {
    operator.add: _sum,
    operator.iadd: _sum,
    torch.add: _sum,
    "add": _sum,
    "add_": _sum,
    torch.cat: _cat,
    torch.concat: _cat,
    torch.concatenate: _cat,
    torch.flatten: _flatten,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    torch.reshape: _view,
    "mean": _mean,
    torch.mean: _mean,
    torch.relu: lambda x: ReLU(),
    "relu": lambda x: ReLU(),
    "relu_": lambda x: ReLU(),
    torch.relu_: lambda x: ReLU(),
    F.relu: lambda x, inplace=False: ReLU(),
    F.relu6: lambda x, inplace=False: ReLU6(),
    F.silu: lambda x, inplace=False: SiLU(),
    F.dropout: _identity,
    F.dropout2d: _identity,
    "contiguous": _identity,
    F.max_pool2d: _max_pool_call,
    torch.max_pool2d: _max_pool_call,
    F.avg_pool2d: _average_pool_call,
    F.adaptive_avg_pool2d: lambda x, output_size: _adaptive(output_size),
}
"""Functions, and methods of tensors by name; each takes the call's arguments as they were."""


def bind_call(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Layer | None:
    """The layer for a call of a function (or of a tensor's method, by name), or None.

    Activations among the arguments are tensors of the shape they have for a batch of images.
    """
    bind = CALLS.get(target)
    if bind is None:
        return None
    try:
        return bind(*args, **kwargs)
    except TypeError:  # arguments that the rule does not know
        return None
