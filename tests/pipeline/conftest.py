"""A real, tiny classifier whose evidence is known: it sees saturated red, green or blue and nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from worker.networks import NETWORKS, Network, Preprocessing
from worker.parameters import GUIDED, Parameters, Source

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


class Patches(nn.Module):
    """One channel per colour: how much a pixel exceeds the other two, averaged; logits are scaled means."""

    def __init__(self) -> None:
        super().__init__()
        self.detect = nn.Conv2d(3, 3, 1)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.detect.weight.copy_((1.5 * torch.eye(3) - 0.3)[..., None, None])
            self.detect.bias.fill_(-0.3)
            self.head.weight.copy_(40 * torch.eye(3))
            self.head.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.pool(self.relu(self.detect(images)))
        logits: torch.Tensor = self.head(self.flatten(self.mean(seen)))
        return logits


@pytest.fixture
def network() -> Network:
    """`Patches` as a network of the catalogue would come."""
    preprocessing = Preprocessing(size=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    entry = dataclasses.replace(
        NETWORKS["vgg16"],
        name="patches",
        preprocessing=preprocessing,
        layers=("pool",),
        classes=lambda: tuple(COLOURS),
    )
    return Network(
        name="patches",
        module=Patches().eval().requires_grad_(False),
        preprocessing=preprocessing,
        classes=tuple(COLOURS),
        weights_digest="0" * 64,
        entry=entry,
    )


@pytest.fixture
def plain() -> Parameters:
    """Sharp edges: no mask, hardly any smoothing."""
    sources = (Source("pool", sigma=0.005), Source(GUIDED, sigma=0.005))
    return Parameters(sources=sources, grid=64, border_kind="none", threshold=0.5)


def picture(size: tuple[int, int], *patches: tuple[str, tuple[int, int, int, int]]) -> Image.Image:
    """Grey, with half-open rectangles of pure colours."""
    image = Image.new("RGB", size, (90, 90, 90))
    draw = ImageDraw.Draw(image)
    for colour, (x0, y0, x1, y1) in patches:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=COLOURS[colour])
    return image
