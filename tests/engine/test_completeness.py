"""Contributions sum to the change of the logit: every network of the catalogue, in float64."""

from __future__ import annotations

import pytest
import torch
from random_networks import build_random, calibrate
from tiny import EXACT, noise
from torch import Tensor

from worker.attribution import Attributor
from worker.networks import NETWORKS

SIZES = {"alexnet": 63, "xception": 71}
"""Small ones, but large enough for the network; 32 otherwise."""


def _gradual(size: int) -> Tensor:
    """A flat image and a ramp: neighbours are equal, or nearly."""
    ramp = torch.linspace(-2, 2, size, dtype=EXACT).expand(1, 3, size, size)
    return torch.cat([torch.full_like(ramp, 0.7), ramp])


@pytest.mark.parametrize("name", NETWORKS)
def test_contributions_sum_to_the_change_of_the_logit(name: str) -> None:
    entry, size = NETWORKS[name], SIZES.get(name, 32)
    module = build_random(name, dtype=torch.float32)
    module = calibrate(module, (size, size)).double()
    images = torch.cat([noise(1, size, size), _gradual(size)])
    rows, targets = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 4, 2, 1])
    with torch.no_grad():
        logits = module(images)
    extremes: tuple[Tensor | float | str, ...] = (0.0, -50.0, "blur", noise(1, size, size, seed=1) * 10)
    engine: Attributor | None = None
    for reference in extremes:
        engine = Attributor(
            module, input_size=(size, size), precision=EXACT, reference=reference, layers=entry.layers, like=engine
        )
        found = engine(images, lambda _: (rows, targets))
        torch.testing.assert_close(found.logits, logits, rtol=0, atol=1e-9)
        assert found.delta.abs().max() <= 1e-9
        sums = found.deeplift.sum((1, 2, 3))
        if isinstance(reference, float):
            with torch.no_grad():
                before = module(torch.full_like(images[:1], reference))
            torch.testing.assert_close(sums, logits[rows, targets] - before[0, targets], rtol=0, atol=1e-9)
        assert sums.abs().max() > 1e-3, "nothing is attributed, so nothing is shown"
        for layer in entry.layers:
            torch.testing.assert_close(found.layers[layer].sum((1, 2)), sums, rtol=0, atol=1e-9, msg=layer)
        assert found.guided.isfinite().all()
