"""Small networks with random weights, as the catalogue would give them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from random_networks import build_random, calibrate

from worker.networks import NETWORKS, Network


@pytest.fixture(scope="session")
def network_of() -> Callable[..., Network]:
    """A network of the catalogue with random weights and few classes, calibrated so that no logit is constant."""

    def build(name: str = "efficientnet_lite0", *, size: int = 64, dtype: torch.dtype = torch.float32) -> Network:
        entry = NETWORKS[name]
        module = calibrate(build_random(name, dtype=torch.float32), (size, size)).to(dtype)
        count = len(module(torch.zeros(1, 3, size, size, dtype=dtype))[0])
        classes = tuple(f"class {index}" for index in range(count))
        preprocessing = type(entry.preprocessing)(
            size=(size, size), mean=entry.preprocessing.mean, std=entry.preprocessing.std
        )
        return Network(name, module.eval().requires_grad_(False), preprocessing, classes, "0" * 64, entry)

    return build
