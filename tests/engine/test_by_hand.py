"""Networks small enough to be computed by hand: the maps are exactly those numbers."""

from __future__ import annotations

import pytest
import torch
from tiny import attribute, first_channel, values, weigh
from torch import Tensor, nn

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@DTYPES
def test_relu_then_max_pool(dtype: torch.dtype) -> None:
    """ReLU(x) = [1, 0.5], ReLU(x0) = [0, 3]: the maximum falls from 3 to 1, and all of it is the second input's."""
    module = first_channel(nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Flatten())
    found = attribute(module, [[1, 0.5]], [[0, 3]], dtype=dtype)
    assert values(found.deeplift) == [[0, -2]]
    assert values(found.guided) == [[1, 0]]
    assert values(found.gradient) == [[1, 0]]
    assert found.logits.tolist() == [[1]]
    assert found.delta.item() == 0


@DTYPES
def test_relu_then_max_pool_over_squares(dtype: torch.dtype) -> None:
    """The same in a window of 2×2, where both layers are computed as one; the other window is nowhere positive."""
    module = first_channel(nn.ReLU(), nn.MaxPool2d(2), *weigh(1, 5))
    found = attribute(module, [[1, 0.5, -1, -2], [-1, -1, -3, 0]], [[0, 3, -2, -2], [-1, 0, -9, -1]], dtype=dtype)
    assert values(found.deeplift) == [[0, -2, 0, 0], [0, 0, 0, 0]]
    assert values(found.guided) == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert found.delta.item() == 0


@DTYPES
def test_a_new_maximum_at_another_place_takes_what_is_above_the_old_one(dtype: torch.dtype) -> None:
    """The maximum moves from 1 (right) to 4 (left, where it was −4): 3 goes to the left."""
    for pool in (nn.MaxPool2d((1, 2)), nn.MaxPool2d((1, 2), 1)):
        found = attribute(first_channel(nn.ReLU(), pool, *weigh(2)), [[4, 0]], [[-4, 1]], dtype=dtype)
        assert values(found.deeplift) == [[6, 0]]
        assert found.delta.item() == 0


def _pairs_summed() -> nn.Conv2d:
    """Sums of two neighbours, (1, 2k) → (1, k)."""
    conv = nn.Conv2d(1, 1, (1, 2), stride=(1, 2), bias=False)
    nn.init.ones_(conv.weight)
    return conv


@DTYPES
@pytest.mark.parametrize("layers", [(), (nn.ReLU(),)], ids=["pool", "relu and pool"])
@pytest.mark.parametrize("height", [1, 2])
def test_a_maximum_in_which_nothing_changed_has_the_gradient(
    dtype: torch.dtype, layers: tuple[nn.Module, ...], height: int
) -> None:
    """Sums [1, 0] of the image, [1, 3] of the reference: the second one takes the fall of the maximum from 3 to 1.

    In the first one, the image's maximum, Δin = 0, so its multiplier is the local gradient, 1: its own inputs have
    changed, by 2 and −2. In windows of two rows, where ReLU and pool are computed as one, the second row is low.
    """
    module = first_channel(_pairs_summed(), *layers, nn.MaxPool2d((height, 2)), nn.Flatten())
    low = [[-5.0] * 4] * (height - 1)
    found = attribute(module, [[2, -1, 0, 0], *low], [[0, 1, 3, 0], *low], dtype=dtype)
    assert values(found.deeplift)[0] == pytest.approx([2, -2, -2, 0], abs=1e-6)
    assert found.deeplift.sum(1)[0, 1:].count_nonzero() == 0
    assert found.delta.abs().max() <= 1e-6


@DTYPES
def test_relu(dtype: torch.dtype) -> None:
    module = first_channel(nn.ReLU(), *weigh(1, 2, -1, 4))
    found = attribute(module, [[2, -1, 3, -2]], [[-2, -3, 1, 2]], dtype=dtype)
    assert values(found.deeplift) == [[2, 0, -2, -8]]  # w · (relu(x) − relu(x0))
    assert values(found.guided) == [[1, 0, 0, 0]]  # the third signal is negative
    assert values(found.gradient) == [[1, 0, -1, 0]]


@DTYPES
def test_relu6(dtype: torch.dtype) -> None:
    module = first_channel(nn.ReLU6(), *weigh(1, 2, -1, 4, 1))
    found = attribute(module, [[9, -1, 3, 7, 2]], [[3, 3, -3, 8, 2]], dtype=dtype)
    assert values(found.deeplift) == [[3, -6, -3, 0, 0]]
    assert values(found.guided) == [[0, 0, 0, 0, 1]]
    assert values(found.gradient) == [[0, 0, -1, 0, 1]]


def test_multipliers_chain_through_two_layers() -> None:
    """f = 2 · relu(a + b − 1) − relu(a) at (1, 1) against (0, 0): secants 1/2 and 1."""
    mix = nn.Conv2d(1, 2, (1, 2))
    with torch.no_grad():
        mix.weight.copy_(torch.tensor([[[[1.0, 1.0]]], [[[1.0, 0.0]]]]))
        mix.bias = nn.Parameter(torch.tensor([-1.0, 0.0]))
    found = attribute(first_channel(mix, nn.ReLU(), *weigh(2, -1)), [[1, 1]], [[0, 0]], layers=("1", "2"))
    assert values(found.deeplift) == [[0, 1]]
    assert values(found.gradient) == [[1, 2]]
    assert values(found.guided) == [[2, 2]]
    assert found.layers["1"].tolist() == found.layers["2"].tolist() == [[[1]]]  # 2 · 1 − 1 · 1
    assert found.delta.item() == 0


def test_overlapping_windows_add_up() -> None:
    module = first_channel(nn.MaxPool2d((1, 2), 1), *weigh(1, 10))
    found = attribute(module, [[1, 3, 2]], [[0, 0, 0]])
    assert values(found.deeplift) == [[0, 33, 0]]
    assert values(found.guided) == [[0, 11, 0]]


def test_windows_cut_off_by_ceil_mode_and_padding() -> None:
    whole = first_channel(nn.MaxPool2d((1, 2), ceil_mode=True), *weigh(1, 10))
    assert values(attribute(whole, [[1, 3, -2]], [[0, 0, 0]]).deeplift) == [[0, 3, -20]]
    padded = first_channel(nn.MaxPool2d((1, 2), padding=(0, 1)), *weigh(1, 10))
    assert values(attribute(padded, [[-1, 3, 2]], [[0, 0, 0]]).deeplift) == [[-1, 30, 0]]


def test_average_pools() -> None:
    padded = nn.AvgPool2d((1, 2), padding=(0, 1))
    assert values(attribute(first_channel(padded, *weigh(1, 4)), [[2, 4, 6]], [[0, 0, 2]]).deeplift) == [[1, 8, 8]]
    counted = nn.AvgPool2d((1, 2), padding=(0, 1), count_include_pad=False)
    assert values(attribute(first_channel(counted, *weigh(1, 4)), [[2, 4, 6]], [[0, 0, 2]]).deeplift) == [[2, 8, 8]]
    uneven = nn.AdaptiveAvgPool2d((1, 2))  # windows 0–1 and 1–2
    assert values(attribute(first_channel(uneven, *weigh(2, 4)), [[2, 4, 6]], [[0, 0, 0]]).deeplift) == [
        [2, 12, 12]
    ]


def test_batch_norm_is_that_of_inference() -> None:
    norm = nn.BatchNorm2d(1, eps=1.0)
    norm.running_mean, norm.running_var = torch.tensor([7.0]), torch.tensor([3.0])
    norm.weight, norm.bias = nn.Parameter(torch.tensor([6.0])), nn.Parameter(torch.tensor([-100.0]))
    found = attribute(first_channel(nn.ReLU(), norm, *weigh(1, -1)).train(), [[2, 5]], [[-1, 1]])
    assert found.logits.tolist() == [[-9]]
    assert values(found.deeplift) == [[6, -12]]  # scale 6 / √4


class _Residual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.relu()


class _Both(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.relu()], 3)


def test_branches_add_up() -> None:
    assert values(attribute(first_channel(_Residual(), *weigh(1, 1)), [[-1, 2]], [[1, 1]]).deeplift) == [[-3, 2]]
    both = first_channel(_Both(), *weigh(1, 1, 10, 100))
    assert values(attribute(both, [[-1, 2]], [[1, 1]]).deeplift) == [[-12, 101]]


def test_convolution_with_stride_and_dilation() -> None:
    """Places 0 and 2, 2 and 4 are read."""
    conv = nn.Conv2d(1, 1, (1, 2), stride=2, dilation=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[1.0, -2.0]]]]))
    found = attribute(first_channel(conv, *weigh(1, 3)), [[1, 9, 2, 9, 3]], [[0, 0, 0, 0, 1]])
    assert values(found.deeplift) == [[1, 0, 2, 0, -12]]


def test_each_target_has_its_own_map() -> None:
    linear = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [-5.0, 6.0]]))
    module = first_channel(nn.Flatten(), linear)
    maps = [values(attribute(module, [[1, 10]], [[0, 0]], target=target).deeplift) for target in range(3)]
    assert maps == [[[1, 20]], [[3, 40]], [[-5, 60]]]
