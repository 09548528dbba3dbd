"""What fewer digits cost: maps of bfloat16 and float32 against float64, on a VGG with random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from random_networks import build_random
from tiny import noise
from torch import Tensor

from worker.attribution import Attribution, Attributor

SIZE = (64, 64)


def _cosine(found: Tensor, right: Tensor) -> float:
    return float(F.cosine_similarity(found.flatten(1).double(), right.flatten(1).double()).min())


def test_maps_keep_their_direction() -> None:
    module = build_random("vgg11", dtype=torch.float32)
    images = F.interpolate(noise(2, 9, 9, dtype=torch.float32), SIZE, mode="bicubic")  # smooth, as photos are
    targets = torch.tensor([0, 3])

    def maps(precision: torch.dtype) -> Attribution:
        return Attributor(module, input_size=SIZE, precision=precision, layers=["features.20"])(images, targets)

    double, single, half = (maps(kind) for kind in (torch.float64, torch.float32, torch.bfloat16))
    assert double.deeplift.dtype == torch.float64
    for found in (single, half):
        assert found.logits.dtype == found.deeplift.dtype == found.guided.dtype == torch.float32
        assert found.layers["features.20"].dtype == torch.float32
    # Random weights are harder than trained ones: more maxima are nearly equal, and change places when rounded.
    for found, bound in ((single, 0.999999), (half, 0.9)):
        assert _cosine(found.deeplift, double.deeplift) >= bound
        assert _cosine(found.layers["features.20"], double.layers["features.20"]) >= bound
    assert _cosine(single.guided, double.guided) >= 0.999999
    assert _cosine(half.guided, double.guided) >= 0.98
    assert single.delta.abs().max() <= 1e-4
    change = double.deeplift.sum((1, 2, 3)).abs().max()
    assert half.delta.abs().max() <= 0.1 * max(1.0, float(change))
