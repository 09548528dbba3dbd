"""Weights laid out for the processor: the same sums, and in float32 more exact ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import distance
from torch import Tensor

from worker.rules.linear import Convolution
from worker.rules.packed import can_pack, pack_convolution

pytestmark = pytest.mark.skipif(
    not can_pack(torch.float32, torch.device("cpu")), reason="this torch lacks oneDNN's packed convolutions"
)


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [3, 16, 24, 48, 80, 96, 97, 256])
@pytest.mark.parametrize("how", [(1, 1, 1), (2, 0, 1), (1, 2, 2)], ids=["plain", "stride", "dilation"])
def test_any_number_of_channels_is_summed_up_whole(channels: int, how: tuple[int, int, int]) -> None:
    stride, padding, dilation = ((n, n) for n in how)
    x, weight, bias = _drawn(2, channels, 9, 11, seed=0), _drawn(8, channels, 3, 3, seed=1), _drawn(8, seed=2)
    layer = Convolution(weight, bias, stride, padding, dilation)
    right = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding, dilation)
    found = pack_convolution(layer, x.shape, right.shape)
    assert distance(found.forward(x), right) <= 1e-6
    signal = _drawn(*right.shape, seed=3)
    back = torch.nn.grad.conv2d_input(x.shape, weight.double(), signal.double(), stride, padding, dilation)
    assert distance(found.backward(signal, [x.shape])[0], back) <= 1e-6


def test_rounding_errors_do_not_grow_with_the_channels() -> None:
    """Added up one after the other, 512 channels come out three to four times less exact: 8e-7."""
    x, weight = _drawn(1, 512, 14, 14, seed=0).relu(), _drawn(64, 512, 3, 3, seed=1)
    right = F.conv2d(x.double(), weight.double(), None, 1, 1)
    layer = pack_convolution(Convolution(weight, None, (1, 1), (1, 1)), x.shape, right.shape)
    assert distance(layer.forward(x), right) <= 3e-7
