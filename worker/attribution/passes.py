"""The two passes: a forward that records, and one backward for all rows of all methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attribution.tracing import Program
from worker.rules import Method, Nonlinear, Record, Reference


@dataclass(frozen=True, eq=False)
class ReferencePass:
    """What is kept of the reference: computed once, used by every call."""

    image: Tensor
    """(1, 3, H, W), or one for each image."""
    logits: Tensor
    remembered: Mapping[int, Reference]
    """By the number of a nonlinear step's output."""
    kept: Mapping[int, Tensor]
    """Activations of the inner layers that are asked for."""


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What is kept of the images."""

    images: Tensor
    logits: Tensor
    records: Mapping[int, Record]
    kept: Mapping[int, Tensor]


def run_reference(program: Program, image: Tensor, keep: Collection[int]) -> ReferencePass:
    """Forward pass of the reference."""
    values: dict[int, Tensor] = {0: image}
    remembered: dict[int, Reference] = {}
    last = _last_uses(program, keep)
    for i, step in enumerate(program.steps):
        inputs = [values[number] for number in step.inputs]
        if isinstance(step.layer, Nonlinear):
            values[step.output], remembered[step.output] = step.layer.remember(*inputs)
        else:
            values[step.output] = step.layer.forward(*inputs)
        _forget(values, last, i)
    kept = {number: values[number] for number in keep}
    return ReferencePass(image, values[program.output], remembered, kept)


def run_forward(
    program: Program, images: Tensor, reference: ReferencePass | None, keep: Collection[int]
) -> ForwardPass:
    """Forward pass of images that records what the way back needs; without a reference nothing is recorded."""
    values: dict[int, Tensor] = {0: images}
    records: dict[int, Record] = {}
    last = _last_uses(program, keep)
    for i, step in enumerate(program.steps):
        inputs = [values[number] for number in step.inputs]
        if isinstance(step.layer, Nonlinear) and reference is not None:
            overwrite = step.inputs[0] in last.get(i, ())
            seen = reference.remembered[step.output]
            values[step.output], records[step.output] = step.layer.record(*inputs, seen, overwrite=overwrite)
        else:
            values[step.output] = step.layer.forward(*inputs)
        _forget(values, last, i)
    kept = {number: values[number] for number in keep}
    return ForwardPass(images, values[program.output], records, kept)


def run_backward(
    program: Program,
    forward: ForwardPass,
    rows: Tensor | None,
    targets: Tensor,
    methods: Sequence[Method],
    keep: Collection[int],
) -> tuple[Tensor, dict[int, Tensor]]:
    """Multipliers from the target logits back to the pixels, for all methods in one pass.

    Args:
        rows: (R,) the image of each row; None where row i belongs to image i.
        targets: (R,) the class of each row.
        keep: numbers of inner values whose DeepLIFT multipliers are wanted.

    Returns:
        (methods · R, 3, H, W), the rows of each method together, and (R, …) for each of `keep`.
    """
    count = len(targets)
    size = (len(methods) * count, program.shapes[program.output][1])
    start = torch.zeros(size, dtype=forward.logits.dtype, device=forward.logits.device)
    start.scatter_(1, targets.repeat(len(methods))[:, None], 1)
    signals: dict[int, Tensor] = {program.output: start}
    kept: dict[int, Tensor] = {}
    for step in reversed(program.steps):
        signal = signals.pop(step.output, None)
        if signal is None:
            continue  # a value that nobody reads
        if step.output in keep:
            kept[step.output] = _part(signal, "deeplift", methods, count)
        passed: Sequence[Tensor]
        if isinstance(step.layer, Nonlinear):
            record = forward.records[step.output]
            if rows is not None:
                record = tuple(part.index_select(0, rows) for part in record)
            shape = program.shapes[step.inputs[0]]
            parts = [
                step.layer.backward(method, _part(signal, method, methods, count), record, shape)
                for method in methods
            ]
            passed = (torch.cat(parts),)
        else:
            passed = step.layer.backward(signal, [program.shapes[number] for number in step.inputs])
        for number, value in zip(step.inputs, passed, strict=True):
            signals[number] = signals[number] + value if number in signals else value
    if 0 in keep:
        kept[0] = _part(signals[0], "deeplift", methods, count)
    return signals[0], kept


def _part(signal: Tensor, method: Method, methods: Sequence[Method], count: int) -> Tensor:
    start = methods.index(method) * count
    return signal[start : start + count]


def _last_uses(program: Program, keep: Collection[int]) -> dict[int, list[int]]:
    """Step → the values that nobody needs after it."""
    last: dict[int, int] = {}
    for i, step in enumerate(program.steps):
        last[step.output] = i
        for number in step.inputs:
            last[number] = i
    done: dict[int, list[int]] = {}
    for number, i in last.items():
        if number not in keep and number not in (0, program.output):
            done.setdefault(i, []).append(number)
    return done


def _forget(values: dict[int, Tensor], last: Mapping[int, list[int]], step: int) -> None:
    for number in last.get(step, ()):
        del values[number]
