"""What is known about a classifier before it is loaded, and what is there afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photo becomes the network's input.

    The whole photo is squashed to `size` (no crop: boxes must be able to cover all of it), scaled to
    [0, 1], and each RGB channel normalised to (value - mean) / std.
    """

    size: tuple[int, int] = (224, 224)
    """Height and width of the input, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    """"bilinear" or "bicubic", antialiased."""

    def normalise(self, images: Tensor) -> Tensor:
        """(…, 3, H, W) in [0, 1] → the network's input, same shape."""
        mean, std = (torch.tensor(v, dtype=images.dtype, device=images.device) for v in (self.mean, self.std))
        return (images - mean[:, None, None]) / std[:, None, None]

    def denormalise(self, images: Tensor) -> Tensor:
        """The inverse of `normalise`: (…, 3, H, W) back to [0, 1]."""
        mean, std = (torch.tensor(v, dtype=images.dtype, device=images.device) for v in (self.mean, self.std))
        return images * std[:, None, None] + mean[:, None, None]


class Source(Protocol):
    """Where published weights come from: see `sources`."""

    def find(self, cache_dir: Path) -> Path | None:
        """The weights file if it is on this machine already, else None."""

    def fetch(self, cache_dir: Path, *, progress: bool) -> Path:
        """The weights file, downloaded if need be. Raises WeightsError that says how to go on without."""

    def check(self, path: Path, sha256: str) -> None:
        """Raise WeightsError if a file of this hex SHA-256 is not what was published."""


def _same(state: State) -> State:
    return state


@dataclass(frozen=True)
class NetworkEntry:
    """One classifier of the catalogue."""

    name: str
    build: Callable[[int], nn.Module]
    """Number of classes → the module, with random weights. Must be traceable by torch.fx."""
    source: Source
    preprocessing: Preprocessing
    classes: Callable[[], tuple[str, ...]]
    """Names of the published weights' classes, by index."""
    layers: tuple[str, ...]
    """Module paths of inner layers that heat maps can be taken from, last one first. A path may name a
    block; its output counts."""
    convert: Callable[[State], State] = field(default=_same, repr=False)
    """Turns the keys of published checkpoints into those of the module; leaves the module's own alone."""


@dataclass(frozen=True)
class Network:
    """A classifier that is ready to use."""

    name: str
    module: nn.Module
    """In eval mode; no parameter requires a gradient; float32."""
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    """Name of each output, by index."""
    weights_digest: str
    """Hex SHA-256 of the weights file: same content, same digest, wherever it lies."""
    entry: NetworkEntry
    own: int = 0
    """How many classes, the last ones, are labels of one project's own: see `worker.heads`."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Module paths of inner layers that heat maps can be taken from, last one first."""
        return self.entry.layers

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device
