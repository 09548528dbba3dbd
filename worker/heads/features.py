"""What a network's last linear layer sees of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn

from worker.heads.outputs import last_linear, linear_at, with_module
from worker.images import Photo, to_tensor
from worker.networks import Network

_BATCH = 8


def features(network: Network, images: Iterable[Photo | Image.Image]) -> Tensor:
    """What the last linear layer sees of each picture: (N, D) float32, on the CPU. Pictures are read one by one.

    The logits are a linear function of it. D is 4096 for VGG, 1280 for EfficientNet-Lite0, 512 or 2048 for ResNets.
    Raises NetworkError where the network does not end in a linear layer.
    """
    path = last_linear(network)
    body = with_module(network.module, path, nn.Identity())
    found = [torch.empty(0, linear_at(network, path).in_features)]
    with torch.no_grad():
        for batch in _batches(to_tensor(image, network.preprocessing) for image in images):
            inputs = batch.to(network.device).contiguous(memory_format=torch.channels_last)
            found.append(body(inputs).float().cpu())
    return torch.cat(found)


def _batches(inputs: Iterator[Tensor]) -> Iterator[Tensor]:
    while part := list(islice(inputs, _BATCH)):
        yield torch.stack(part)
