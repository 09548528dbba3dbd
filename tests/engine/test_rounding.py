"""What fewer digits cost: maps of float32 and bfloat16 against float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from random_networks import build_random
from tiny import noise
from torch import Tensor, nn

from backend.demo.photos import FOLDER
from worker.attribution import Attribution, Attributor
from worker.images import decode, to_tensor
from worker.networks import load_network

SIZE, LAYER = (64, 64), "features.20"
IMAGES = F.interpolate(noise(4, 9, 9, dtype=torch.float32), SIZE, mode="bicubic")  # smooth, as photos are
TARGETS = torch.tensor([0, 3, 1, 4])


def _cosine(found: Tensor, right: Tensor) -> float:
    """The lowest of all images."""
    return float(F.cosine_similarity(found.flatten(1).double(), right.flatten(1).double()).min())


def _maps(module: nn.Module, precision: torch.dtype, images: Tensor = IMAGES) -> Attribution:
    return Attributor(module, input_size=SIZE, precision=precision, layers=[LAYER])(images, TARGETS)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return build_random("vgg11", dtype=torch.float32)


@pytest.fixture(scope="module")
def right(module: nn.Module) -> Attribution:
    return _maps(module, torch.float64)


@pytest.fixture(scope="module")
def single(module: nn.Module) -> Attribution:
    return _maps(module, torch.float32)


@pytest.fixture(scope="module")
def half(module: nn.Module) -> Attribution:
    """Once: a processor without instructions for bfloat16 takes its time."""
    return _maps(module, torch.bfloat16)


def test_float32_keeps_everything(single: Attribution, right: Attribution) -> None:
    for a, b in ((single.deeplift, right.deeplift), (single.guided, right.guided)):
        assert _cosine(a, b) >= 1 - 1e-9
    assert _cosine(single.layers[LAYER], right.layers[LAYER]) >= 1 - 1e-9
    assert single.delta.abs().max() <= 1e-4


def test_answers_are_float32(single: Attribution, half: Attribution) -> None:
    for found in (single, half):
        maps = (found.logits, found.deeplift, found.guided, found.layers[LAYER], found.delta)
        assert {part.dtype for part in maps} == {torch.float32}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_an_image_equal_to_the_reference_has_no_contributions(module: nn.Module, precision: torch.dtype) -> None:
    """The reference is computed alone and once, the image in a batch: both must be rounded alike."""
    images = IMAGES.clone()
    images[1] = 0
    found = _maps(module, precision, images)
    assert not found.deeplift[1].any()
    assert not found.layers[LAYER][1].any()
    assert found.delta[1].abs() <= 1e-3


def test_bfloat16_costs_little_more_than_rounding_the_weights_to_it(
    module: nn.Module, right: Attribution, half: Attribution
) -> None:
    """No arithmetic can do better than exact arithmetic with rounded weights and images: a yardstick of the bound.

    With random weights it moves maps a good deal (cosine 0.97), since many maxima are nearly equal and change
    places. What the arithmetic adds has been 40 to 80 % of that; secants of rounded differences add far more.
    """
    rounded = copy.deepcopy(module).bfloat16().float()
    least = _maps(rounded, torch.float64, IMAGES.bfloat16().float())
    for name in ("deeplift", "guided"):
        lost = 1 - _cosine(getattr(half, name), getattr(right, name))
        unavoidable = 1 - _cosine(getattr(least, name), getattr(right, name))
        assert unavoidable < 0.05
        assert lost <= 2.5 * unavoidable, name
    assert _cosine(half.layers[LAYER], right.layers[LAYER]) >= 0.998
    assert (half.delta.abs() <= 0.02 * right.deeplift.abs().sum((1, 2, 3))).all()


def test_bfloat16_keeps_the_maps_of_photos() -> None:
    """The inner layers decide about the boxes; pixels of a network of depthwise convolutions are the hardest."""
    network = load_network("efficientnet_lite0")
    files = sorted(FOLDER.glob("*.jpg"))[:3]
    photos = [decode(file.read_bytes(), name=file.name) for file in files]
    images = torch.stack([to_tensor(photo, network.preprocessing) for photo in photos])
    with torch.no_grad():
        targets = network.module(images).argmax(1)
    size, layers = network.preprocessing.size, network.layers[:2]
    single, half = (
        Attributor(network.module, input_size=size, precision=kind, layers=layers)(images, targets)
        for kind in (torch.float32, torch.bfloat16)
    )
    for name in layers:
        assert _cosine(half.layers[name], single.layers[name]) >= 0.998
    assert _cosine(half.guided, single.guided) >= 0.95
    assert _cosine(half.deeplift, single.deeplift) >= 0.9
