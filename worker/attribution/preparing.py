"""A traced network made ready for one device and number format."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection

import torch
from torch import Tensor

from worker.attribution.tracing import Program, Step, convert
from worker.rules.linear import Affine, Convolution, FullyConnected


def prepare(program: Program, precision: torch.dtype, device: torch.device, keep: Collection[int]) -> Program:
    """The program with its parameters in `precision` on `device`, batch norms folded into convolutions.

    The layer that yields the logits stays in float32, so that classes which bfloat16 could not tell apart keep their order.
    """
    steps = fold_batch_norms(program, keep)
    wide = torch.promote_types(precision, torch.float32)

    def placed(step: Step) -> Step:
        layer = step.layer
        kind = wide if isinstance(layer, FullyConnected) and step.output == program.output else precision

        def change(tensor: Tensor) -> Tensor:
            tensor = tensor.to(device, kind)
            return (
                tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()
            )

        layer = convert(layer, change)  # type: ignore[assignment]
        if isinstance(layer, FullyConnected):
            layer = dataclasses.replace(layer, outside=precision)
        return dataclasses.replace(step, layer=layer)

    return dataclasses.replace(program, steps=tuple(placed(step) for step in steps))


def fold_batch_norms(program: Program, keep: Collection[int]) -> tuple[Step, ...]:
    """Steps in which a batch norm that alone reads a convolution is part of it; folded in float64.

    The sum is the same: scale · (W x + b) + shift = (scale · W) x + (scale · b + shift).
    """
    readers = Counter(number for step in program.steps for number in step.inputs)
    steps: dict[int, Step] = {}
    for step in program.steps:
        before = steps.get(step.inputs[0])
        if (
            isinstance(step.layer, Affine)
            and before is not None
            and isinstance(before.layer, Convolution)
            and readers[before.output] == 1
            and before.output not in keep
        ):
            del steps[before.output]
            layer = folded(before.layer, step.layer)
            step = Step(step.name, layer, before.inputs, step.output)  # noqa: PLW2901
        steps[step.output] = step
    return tuple(steps.values())


def folded(convolution: Convolution, norm: Affine) -> Convolution:
    """One convolution that does what both do, with float64 parameters."""
    weight = convolution.weight.double() * norm.scale.double()[:, None, None, None]
    bias = norm.shift.double()
    if convolution.bias is not None:
        bias = bias + norm.scale.double() * convolution.bias.double()
    return dataclasses.replace(convolution, weight=weight, bias=bias)
