"""Networks of the catalogue with cheap random weights."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn

from worker.networks import NETWORKS

LARGE = 1 << 24


def _draw(weight: Tensor, generator: torch.Generator) -> Tensor:
    bound = math.sqrt(6 / weight[0].numel())
    return weight.uniform_(-bound, bound, generator=generator)


@cache
def _large(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The matrices that all VGGs have alike, drawn once: it takes longer than the tests do."""
    return _draw(torch.empty(shape, dtype=dtype), torch.Generator().manual_seed(2))


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
            if part.weight.numel() > LARGE:
                part.weight = nn.Parameter(_large(tuple(part.weight.shape), dtype), requires_grad=False)
            else:
                _draw(part.weight, generator)
            if part.bias is not None:
                part.bias.uniform_(-0.1, 0.1, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.weight.uniform_(0.7, 1.3, generator=generator)
            part.bias.uniform_(-0.2, 0.2, generator=generator)
            part.running_mean.uniform_(-0.2, 0.2, generator=generator)
            part.running_var.uniform_(0.7, 1.3, generator=generator)
            part.num_batches_tracked.fill_(1)
    return module


def calibrate(module: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Give batch norms the statistics of random images, so that the logits of a deep network stay of order one."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    if norms:
        images = torch.randn(8, 3, *size, generator=torch.Generator().manual_seed(3))
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        module.train()(images.to(next(module.parameters()).dtype))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return module.eval()
