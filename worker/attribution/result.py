"""What an attribution answers, and how parts of it are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Attribution:
    """Maps of R rows, each one class of one image. Everything is float32 (float64 where computed so)."""

    logits: Tensor
    """(N, C), before softmax."""
    rows: Tensor
    """(R,) the image of each row."""
    targets: Tensor
    """(R,) the class of each row."""
    deeplift: Tensor
    """(R, 3, H, W) contributions to the target logit; those of a row sum to f(x) − f(x₀)."""
    guided: Tensor
    """(R, 3, H, W) guided gradients of the target logit."""
    layers: Mapping[str, Tensor]
    """(R, h, w) DeepLIFT contributions at each requested inner layer, summed over channels."""
    delta: Tensor
    """(R,) convergence delta: the sum of the row's contributions minus (f(x) − f(x₀))."""
    gradient: Tensor | None = None
    """(R, 3, H, W) plain gradients, if asked for."""


def join(parts: Sequence[tuple[Tensor, Attribution]], logits: Tensor, rows: Tensor, targets: Tensor) -> Attribution:
    """Parts of the rows as one, each part with the places that its rows take."""
    order = torch.cat([places for places, _ in parts]).argsort()
    found = [part for _, part in parts]

    def together(get: Callable[[Attribution], Tensor]) -> Tensor:
        return torch.cat([get(part) for part in found])[order]

    def layer(name: str) -> Tensor:
        return together(lambda part: part.layers[name])

    def gradient(part: Attribution) -> Tensor:
        assert part.gradient is not None  # noqa: S101 - narrows the type
        return part.gradient

    return Attribution(
        logits=logits,
        rows=rows,
        targets=targets,
        deeplift=together(lambda part: part.deeplift),
        guided=together(lambda part: part.guided),
        layers={name: layer(name) for name in found[0].layers},
        delta=together(lambda part: part.delta),
        gradient=None if found[0].gradient is None else together(gradient),
    )
