"""A traced network made ready for one device and number format."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attribution.sharing import shareable, unchanged
from worker.attribution.tracing import Program, Step, convert
from worker.rules.elementwise import Elementwise, ReLU
from worker.rules.linear import Affine, Convolution, FullyConnected
from worker.rules.packed import PackedConvolution, can_pack, pack_convolution, pack_linear
from worker.rules.pooling import MaxPool
from worker.rules.rectified_pooling import RectifiedMaxPool
from worker.rules.structure import Addition, Concatenation

_TILE_BYTES = 8 << 20
_WEIGHTY = (Convolution, FullyConnected, Affine)


@dataclass(frozen=True)
class Plan:
    """How a program is run: the *body* works on a *tile* of images at a time, the *head* on all vectors at once.

    Small tiles keep activations in the cache; the head's large matrices are best read once for all images.
    """

    program: Program
    body: tuple[Step, ...]
    head: tuple[Step, ...]
    bridge: int
    """The one value that the head reads of the body."""
    tile: int
    """Images in one piece of the body's work."""
    fused: Mapping[int, Step]
    """Output of a convolution → the nonlinear step before it, whose rule the convolution's way back applies."""
    overwriting: frozenset[int]
    """Outputs of nonlinear steps that may take the place of their inputs in memory."""
    traced: Program
    """As it was before anything was done."""
    form: tuple[torch.dtype, torch.device]
    """Number format and device of its parameters."""


def prepare(
    program: Program,
    precision: torch.dtype,
    device: torch.device,
    keep: Collection[int],
    like: Plan | None = None,
) -> Plan:
    """The program with its parameters in `precision` on `device`, and everything done that can be done once.

    Batch norms become part of the convolutions before them, ReLU and 2×2 max pooling one layer. A fully connected
    layer that yields the logits stays in float32, so that classes which bfloat16 could not tell apart keep their
    order. (SqueezeNet's logits are means of a convolution's output, which is computed as the others are.)
    `keep` names values that are asked for, so they must come about. Layers that are the same as in `like` are taken
    from there as they are, if number format, device and tile agree.
    """
    traced = program
    program = dataclasses.replace(program, steps=fold_batch_norms(program, keep))
    program = dataclasses.replace(program, steps=join_pools(program, keep))
    tile = _tile(program, precision, device)
    wide = torch.promote_types(precision, torch.float32)
    ready, same = _ready(traced, like, (precision, device), tile)
    heaviest = [step.output for step in program.steps if isinstance(step.layer, _WEIGHTY)]
    steps = []
    for step in program.steps:
        other = ready.get(step.output)
        if other is not None and shareable(step, other, traced, same):
            steps.append(other)
            continue
        last = isinstance(step.layer, FullyConnected) and step.output == heaviest[-1]
        steps.append(_placed(step, program, wide if last else precision, precision, device, tile))
    program = dataclasses.replace(program, steps=tuple(steps))
    cut, bridge = _cut(program)
    body, head = program.steps[:cut], program.steps[cut:]
    fused, overwriting = _fused(program, body, keep), _overwriting(program, keep)
    return Plan(program, body, head, bridge, tile, fused, overwriting, traced, (precision, device))


def _ready(
    traced: Program, like: Plan | None, form: tuple[torch.dtype, torch.device], tile: int
) -> tuple[Mapping[int, Step], frozenset[int]]:
    """The steps of `like` that have parameters, by output, and which outputs both networks make alike."""
    if like is None or like.form != form or like.tile != tile:
        return {}, frozenset()
    weighty = {step.output: step for step in like.program.steps if isinstance(step.layer, _WEIGHTY)}
    return weighty, unchanged(traced, like.traced)


def _placed(
    step: Step, program: Program, kind: torch.dtype, outside: torch.dtype, device: torch.device, tile: int
) -> Step:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device, kind)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()

    layer = convert(step.layer, change)
    if isinstance(layer, FullyConnected):
        layer = dataclasses.replace(layer, outside=outside)
        if kind == torch.bfloat16 and can_pack(kind, device):  # float32 weights would take too much memory twice
            layer = pack_linear(layer, 8)
    elif isinstance(layer, Convolution) and can_pack(kind, device):
        shapes = program.shapes[step.inputs[0]], program.shapes[step.output]
        layer = pack_convolution(layer, *((tile, *shape[1:]) for shape in shapes))
    return dataclasses.replace(step, layer=layer)  # type: ignore[arg-type]


def _tile(program: Program, precision: torch.dtype, device: torch.device) -> int:
    if device.type != "cpu":
        return 1 << 30
    largest = max(shape[1:].numel() for shape in program.shapes.values())
    return max(1, _TILE_BYTES // (largest * precision.itemsize))


def _readers(program: Program) -> Counter[int]:
    readers = Counter(number for step in program.steps for number in step.inputs)
    readers[program.output] += 1
    return readers


def fold_batch_norms(program: Program, keep: Collection[int]) -> tuple[Step, ...]:
    """Steps in which a batch norm that alone reads a convolution is part of it; folded in float64.

    The sum is the same: scale · (W x + b) + shift = (scale · W) x + (scale · b + shift).
    """
    readers = _readers(program)
    steps: dict[int, Step] = {}
    for step in program.steps:
        layer, before = step.layer, steps.get(step.inputs[0])
        if (
            isinstance(layer, Affine)
            and before is not None
            and isinstance(before.layer, Convolution)
            and readers[before.output] == 1
            and before.output not in keep
        ):
            del steps[before.output]
            steps[step.output] = Step(step.name, folded(before.layer, layer), before.inputs, step.output)
        else:
            steps[step.output] = step
    return tuple(steps.values())


def folded(convolution: Convolution, norm: Affine) -> Convolution:
    """One convolution that does what both do, with float64 parameters."""
    weight = convolution.weight.double() * norm.scale.double()[:, None, None, None]
    bias = norm.shift.double()
    if convolution.bias is not None:
        bias = bias + norm.scale.double() * convolution.bias.double()
    return dataclasses.replace(convolution, weight=weight, bias=bias)


def join_pools(program: Program, keep: Collection[int]) -> tuple[Step, ...]:
    """Steps in which a ReLU and the 2×2 max pooling that alone reads it are one."""
    readers = _readers(program)
    steps: dict[int, Step] = {}
    for step in program.steps:
        before = steps.get(step.inputs[0])
        shape = program.shapes[step.inputs[0]]
        if (
            step.layer == MaxPool((2, 2), (2, 2))
            and before is not None
            and isinstance(before.layer, ReLU)
            and readers[before.output] == 1
            and before.output not in keep
            and shape[2] % 2 == shape[3] % 2 == 0
        ):
            del steps[before.output]
            steps[step.output] = Step(step.name, RectifiedMaxPool(), before.inputs, step.output)
        else:
            steps[step.output] = step
    return tuple(steps.values())


def _cut(program: Program) -> tuple[int, int]:
    """Where the head begins, and the value that it reads: the first vector that all the rest hangs on."""
    for i, step in enumerate(program.steps):
        behind = program.steps[i + 1 :]
        made = {step.output} | {later.output for later in behind}
        if len(program.shapes[step.output]) == 2 and all(set(later.inputs) <= made for later in behind):
            return i + 1, step.output
    return len(program.steps), program.output


def _fused(program: Program, body: tuple[Step, ...], keep: Collection[int]) -> dict[int, Step]:
    readers = _readers(program)
    makers = {step.output: step for step in body}
    fused = {}
    for step in body:
        before = makers.get(step.inputs[0])
        if (
            isinstance(step.layer, PackedConvolution)
            and step.layer.can_scale
            and before is not None
            and isinstance(before.layer, Elementwise)
            and before.layer.rising
            and readers[before.output] == 1
            and before.output not in keep
        ):
            fused[step.output] = before
    return fused


def _overwriting(program: Program, keep: Collection[int]) -> frozenset[int]:
    readers = _readers(program)
    fresh = {
        step.output
        for step in program.steps
        if isinstance(step.layer, Convolution | FullyConnected | Affine | Addition | Concatenation)
    }
    return frozenset(
        step.output
        for step in program.steps
        if isinstance(step.layer, Elementwise)
        and step.inputs[0] in fresh
        and readers[step.inputs[0]] == 1
        and step.inputs[0] not in keep
    )
