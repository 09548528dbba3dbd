"""Networks with cheap random weights, and a cache of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from worker.networks import NETWORKS

Build = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def _no_foreign_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision may have downloaded on this machine does not count, and proxies do not either."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def build_random(name: str, classes: int = 5, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network of the catalogue with weights that keep signals alive, and batch norms that have seen data.

    torchvision's own initialisation of a VGG takes seconds, so weights are drawn uniformly, with He's variance.
    """
    with torch.device("meta"):
        module = NETWORKS[name].build(classes)
    module = module.to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            bound = math.sqrt(6 / part.weight[0].numel())
            part.weight.uniform_(-bound, bound, generator=generator)
            if part.bias is not None:
                part.bias.uniform_(-0.1, 0.1, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.weight.uniform_(0.7, 1.3, generator=generator)
            part.bias.uniform_(-0.2, 0.2, generator=generator)
            part.running_mean.uniform_(-0.2, 0.2, generator=generator)
            part.running_var.uniform_(0.7, 1.3, generator=generator)
            part.num_batches_tracked.fill_(1)
    return module


@pytest.fixture(scope="session")
def random_network() -> Build:
    return build_random
