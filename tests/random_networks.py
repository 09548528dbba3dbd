"""Networks of the catalogue with cheap random weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from worker.networks import NETWORKS


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
