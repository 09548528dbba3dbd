"""Networks that share layers share their prepared copies too: one more of them costs next to no memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from worker.attribution.tracing import Program, Step
from worker.rules import Layer


def unchanged(program: Program, other: Program) -> frozenset[int]:
    """Outputs of the steps that are the same in two traced networks: their place, kind, settings and weights."""
    there = {step.output: step for step in other.steps}
    return frozenset(
        step.output for step in program.steps if step.output in there and _same_step(step, there[step.output])
    )


def shareable(step: Step, other: Step | None, program: Program, same: frozenset[int]) -> bool:
    """Whether a step can take the prepared layer of another network's step.

    `step` and `other` have gone through the same joining of layers, `program` is as it was traced, and `same` of
    `unchanged`.
    """
    if other is None or (step.name, step.inputs) != (other.name, other.inputs):
        return False
    makers = {one.output: one for one in program.steps}
    number = step.output
    while number not in step.inputs:  # everything that became part of the step
        if number not in same:
            return False
        number = makers[number].inputs[0]
    return True


def _same_step(a: Step, b: Step) -> bool:
    return (a.name, a.inputs, type(a.layer)) == (b.name, b.inputs, type(b.layer)) and _same_layer(a.layer, b.layer)


def _same_layer(a: Layer, b: Layer) -> bool:
    return all(_same_value(x, y) for x, y in zip(_values(a), _values(b), strict=True))


def _values(layer: Layer) -> Iterator[Any]:
    bound: Any = layer  # every layer is a dataclass, but the base class is not
    return (getattr(layer, item.name) for item in dataclasses.fields(bound))


def _same_value(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)
