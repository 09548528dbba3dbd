"""What a rule is: a layer bound to its parameters, and how it passes multipliers back.

Two kinds of layers are enough. A *transparent* layer is linear in its inputs: multipliers pass through it as
gradients do, whatever the method. A *nonlinear* layer has its own rule for each method:

- ``deeplift``: the Rescale rule, multiplier = Δout / Δin against the reference (Shrikumar, Greenside and
  Kundaje 2017, section 3.5.2), cross-max for pooling;
- ``guided``: guided backpropagation (Springenberg et al. 2015, section 3.4): a ReLU passes a signal only where its
  input was positive and the signal is positive;
- ``gradient``: the plain gradient.

Layers hold no activations: what a call has seen travels in its `Record`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Size, Tensor

from worker.rules.blocks import Empty

Method: TypeAlias = Literal["deeplift", "guided", "gradient"]
METHODS: tuple[Method, ...] = ("deeplift", "guided", "gradient")

Reference: TypeAlias = tuple[Tensor, ...]
"""What a nonlinear layer keeps of the reference's activations; leading dimension 1, or one for each image."""

Record: TypeAlias = tuple[Tensor, ...]
"""What a nonlinear layer keeps of one forward pass; the leading dimension counts the images."""


class Layer(ABC):  # noqa: B024 - what both kinds share is that they are layers
    """One operation of a network, bound to its parameters."""

    def shape(self, *inputs: Tensor) -> Size:
        """Of the output. Raises RuntimeError for inputs that the layer does not take."""
        output: Tensor = self.forward(*inputs)  # type: ignore[attr-defined]
        return output.shape


class Transparent(Layer):
    """A layer that is linear (affine) in all its inputs together."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The layer's output."""

    @abstractmethod
    def backward(self, signal: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, ...]:
        """Multipliers of the inputs, from those of the output.

        Args:
            signal: multipliers of the output, one row for each attribution: (rows, …).
            shapes: of the inputs in the forward pass; only the part behind the batch dimension counts.
        """


class Nonlinear(Layer):
    """A layer of one input that treats the methods differently."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The layer's output alone."""

    @abstractmethod
    def remember(self, x: Tensor) -> tuple[Tensor, Reference]:
        """Output for the reference's activation `x`, and what later calls need of it."""

    @abstractmethod
    def record(
        self, x: Tensor, reference: Reference, *, overwrite: bool = False, empty: Empty = torch.empty_like
    ) -> tuple[Tensor, Record]:
        """Output for the image's activation `x`, and what the way back needs.

        Args:
            x: the layer's input, one row for each image.
            reference: from `remember`.
            overwrite: `x` is not needed afterwards, so its memory may hold the output.
            empty: gives the memory for the record.
        """

    @abstractmethod
    def backward(self, method: Method, signal: Tensor, record: Record, shape: Size) -> Tensor:
        """Multipliers of the input by `method`, from those of the output; `signal` is left as it is.

        Args:
            signal: (rows, …), row i belonging to row i of `record`.
            record: from `record`, one row for each row of `signal`.
            shape: of the input in the forward pass; only the part behind the batch dimension counts.
        """
