"""The two passes: a forward that records, and one backward for all rows of all methods."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attribution.preparing import Plan
from worker.attribution.tracing import Step
from worker.rules import Method, Nonlinear, Record, Reference
from worker.rules.blocks import Empty
from worker.rules.packed import PackedConvolution

Signals = dict[int, list[Tensor]]
"""Number of a value → its multipliers, one tensor for each method."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What is kept of one piece of the work."""

    records: Mapping[int, Record]
    """By the number of a nonlinear step's output."""
    kept: Mapping[int, Tensor]
    """Activations that are asked for."""


@dataclass(frozen=True, eq=False)
class ReferencePass:
    """What is kept of the reference: computed once, used by every call."""

    image: Tensor
    """(1, 3, H, W), or one for each image."""
    logits: Tensor
    tiles: tuple[Seen, ...]
    """One that serves all, or one for each tile of the images."""
    head: Seen

    def tile(self, index: int) -> Seen:
        """Of the images' tile `index`."""
        return self.tiles[index if len(self.tiles) > 1 else 0]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What is kept of the images."""

    images: Tensor
    logits: Tensor
    tiles: tuple[Seen, ...]
    head: Seen


def run_reference(plan: Plan, image: Tensor, keep: Collection[int]) -> ReferencePass:
    """Forward pass of the reference, (1, 3, H, W) or one for each image."""
    tiles, vectors = [], []
    for part in torch.split(image, plan.tile):
        seen, vector = _remember(plan.body, 0, plan.bridge, part, keep)
        tiles.append(seen)
        vectors.append(vector)
    head, logits = _remember(plan.head, plan.bridge, plan.program.output, torch.cat(vectors), ())
    return ReferencePass(image, logits, tuple(tiles), head)


def run_forward(
    plan: Plan, images: Tensor, reference: ReferencePass, keep: Collection[int], empty: Empty
) -> ForwardPass:
    """Forward pass of the images that records what the way back needs; `empty` gives the records' memory."""
    tiles, vectors = [], []
    for i, part in enumerate(torch.split(images, plan.tile)):
        seen, vector = _record(plan, plan.body, 0, plan.bridge, part, reference.tile(i), keep, empty)
        tiles.append(seen)
        vectors.append(vector)
    bridge = torch.cat(vectors)
    head, logits = _record(plan, plan.head, plan.bridge, plan.program.output, bridge, reference.head, (), empty)
    return ForwardPass(images, logits, tuple(tiles), head)


def run_plain(plan: Plan, images: Tensor) -> Tensor:
    """Logits alone."""
    vectors = []
    for part in torch.split(images, plan.tile):
        values = {0: part}
        for step, inputs in _walk(plan.body, values, plan.bridge, ()):
            values[step.output] = step.layer.forward(*inputs)
        vectors.append(values[plan.bridge])
    values = {plan.bridge: torch.cat(vectors)}
    for step, inputs in _walk(plan.head, values, plan.program.output, ()):
        values[step.output] = step.layer.forward(*inputs)
    return values[plan.program.output]


def run_head_backward(
    plan: Plan, forward: ForwardPass, rows: Tensor | None, targets: Tensor, methods: Sequence[Method]
) -> list[Tensor]:
    """Multipliers from the target logits to the head's input, (R, …) for each method.

    Args:
        rows: (R,) the image of each row; None where row i belongs to image i.
        targets: (R,) the class of each row.
    """
    count = len(targets)
    classes = plan.program.shapes[plan.program.output][1]
    start = torch.zeros((count, classes), dtype=forward.logits.dtype, device=forward.logits.device)
    start.scatter_(1, targets[:, None], 1)
    signals: Signals = {plan.program.output: [start] * len(methods)}
    for step in reversed(plan.head):
        if step.output not in signals:
            continue
        parts = signals.pop(step.output)
        if isinstance(step.layer, Nonlinear):
            _through_nonlinear(plan, step, parts, _of_rows(forward.head, step, rows), methods, signals)
        else:  # matrices are large: read them once for all methods
            passed = _linear(plan, step, torch.cat(parts))
            for number, value in zip(step.inputs, passed, strict=True):
                _add(signals, number, list(torch.split(value, count)))
    return signals[plan.bridge]


def run_body_backward(
    plan: Plan,
    seen: Seen,
    rows: Tensor | None,
    parts: Sequence[Tensor],
    methods: Sequence[Method],
    keep: Collection[int],
) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Multipliers from the head's input to the pixels.

    Args:
        seen: of the tile that the rows belong to.
        rows: (r,) the image of each row, counted from the tile's first; None where row i belongs to image i.
        parts: from `run_head_backward`, (r, …) for each method.
        keep: inner values whose DeepLIFT multipliers are wanted.

    Returns:
        (r, 3, H, W) for each method, and (r, …) for each of `keep`.
    """
    signals: Signals = {plan.bridge: list(parts)}
    kept: dict[int, Tensor] = {}
    for step in reversed(plan.body):
        if step.output not in signals:
            continue  # a value that nobody reads
        if step.output in keep:
            kept[step.output] = signals[step.output][methods.index("deeplift")]
        parts = signals.pop(step.output)
        before = plan.fused.get(step.output)
        if isinstance(step.layer, Nonlinear):
            _through_nonlinear(plan, step, parts, _of_rows(seen, step, rows), methods, signals)
        elif before is not None and isinstance(step.layer, PackedConvolution):
            secant, slope = _of_rows(seen, before, rows)
            scaled = [
                step.layer.backward_scaled(part, secant if method == "deeplift" else slope, clip=method == "guided")
                for method, part in zip(methods, parts, strict=True)
            ]
            _add(signals, before.inputs[0], scaled)
        else:
            passed = zip(*(_linear(plan, step, part) for part in parts), strict=True)
            for number, values in zip(step.inputs, passed, strict=True):
                _add(signals, number, list(values))
    if 0 in keep:
        kept[0] = signals[0][methods.index("deeplift")]
    return signals[0], kept


def _through_nonlinear(
    plan: Plan, step: Step, parts: Sequence[Tensor], record: Record, methods: Sequence[Method], signals: Signals
) -> None:
    assert isinstance(step.layer, Nonlinear)  # noqa: S101 - narrows the type
    (number,) = step.inputs
    shape = plan.program.shapes[number]
    passed = [step.layer.backward(method, part, record, shape) for method, part in zip(methods, parts, strict=True)]
    _add(signals, number, passed)


def _linear(plan: Plan, step: Step, signal: Tensor) -> tuple[Tensor, ...]:
    assert not isinstance(step.layer, Nonlinear)  # noqa: S101 - narrows the type
    return step.layer.backward(signal, [plan.program.shapes[number] for number in step.inputs])


def _add(signals: Signals, number: int, parts: list[Tensor]) -> None:
    there = signals.get(number)
    signals[number] = parts if there is None else [a + b for a, b in zip(there, parts, strict=True)]


def _of_rows(seen: Seen, step: Step, rows: Tensor | None) -> Record:
    record = seen.records[step.output]
    return record if rows is None else tuple(part.index_select(0, rows) for part in record)


def _remember(
    steps: Sequence[Step], start: int, stop: int, value: Tensor, keep: Collection[int]
) -> tuple[Seen, Tensor]:
    values = {start: value}
    remembered: dict[int, Reference] = {}
    for step, inputs in _walk(steps, values, stop, keep):
        if isinstance(step.layer, Nonlinear):
            values[step.output], remembered[step.output] = step.layer.remember(inputs[0])
        else:
            values[step.output] = step.layer.forward(*inputs)
    return Seen(remembered, {number: values[number] for number in keep}), values[stop]


def _record(
    plan: Plan,
    steps: Sequence[Step],
    start: int,
    stop: int,
    value: Tensor,
    reference: Seen,
    keep: Collection[int],
    empty: Empty,
) -> tuple[Seen, Tensor]:
    values = {start: value}
    records: dict[int, Record] = {}
    for step, inputs in _walk(steps, values, stop, keep):
        if isinstance(step.layer, Nonlinear):
            overwrite = step.output in plan.overwriting
            values[step.output], records[step.output] = step.layer.record(
                inputs[0], reference.records[step.output], overwrite=overwrite, empty=empty
            )
        else:
            values[step.output] = step.layer.forward(*inputs)
    return Seen(records, {number: values[number] for number in keep}), values[stop]


def _walk(
    steps: Sequence[Step], values: dict[int, Tensor], stop: int, keep: Collection[int]
) -> Iterator[tuple[Step, list[Tensor]]]:
    """Steps with their inputs; a value is let go after the last step that reads it, unless `stop` or in `keep`."""
    last = {number: i for i, step in enumerate(steps) for number in (*step.inputs, step.output)}
    for i, step in enumerate(steps):
        yield step, [values[number] for number in step.inputs]
        for number in {*step.inputs, step.output}:
            if last[number] == i and number != stop and number not in keep:
                del values[number]
