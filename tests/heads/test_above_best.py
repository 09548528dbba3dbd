"""Further classes that count from the best of the network's own: their logits, and their rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from worker.attribution import Attributor
from worker.captum_engine import CaptumAttributor
from worker.networks import Network
from worker.rules.above_best import AboveBest, BestAdded

EXACT = torch.float64


class Two(nn.Module):
    """The mean colour of an image as three values, two of the network's own classes and one further one."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.outputs = AboveBest(2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.outputs(self.flatten(self.pool(x)))
        return logits


def colour(*values: float) -> Tensor:
    return torch.tensor(values, dtype=EXACT)[None, :, None, None].expand(1, 3, 4, 4).clone()


@pytest.mark.parametrize(
    ("image", "reference", "credit"),
    [
        # The best class before was its own best: it takes all of its change.
        ((3.0, 1.0, 0.5), (0.0, 0.0, 0.0), (3.0, 0.0, 0.5)),
        # Another class was the best: the winner takes what the maximum has gained, 3 - 2.
        ((3.0, 1.0, 0.5), (1.0, 2.0, 0.0), (1.0, 0.0, 0.5)),
        # The maximum has fallen from 2 to 1: the reference's best takes it.
        ((1.0, 0.5, 0.25), (0.0, 2.0, 0.0), (0.0, -1.0, 0.25)),
        # It has fallen, and what is now the best has not changed: no contribution, but the gradient goes on.
        ((1.0, 0.5, 0.25), (1.0, 2.0, 0.0), (0.0, -1.0, 0.25)),
        # Nothing has changed but the further class.
        ((1.0, 0.5, -2.0), (1.0, 0.5, 1.0), (0.0, 0.0, -3.0)),
    ],
)
def test_the_maximum_is_credited_as_a_pooling_window(
    image: tuple[float, ...], reference: tuple[float, ...], credit: tuple[float, ...]
) -> None:
    engine = Attributor(Two(), input_size=(4, 4), precision=EXACT, reference=colour(*reference))
    found = engine(colour(*image), torch.tensor([2]))
    torch.testing.assert_close(found.deeplift.sum((2, 3))[0], torch.tensor(credit, dtype=EXACT))
    assert found.logits[0].tolist() == pytest.approx([*image[:2], max(image[:2]) + image[2]])
    assert found.delta.abs().max() <= 1e-12


def test_own_classes_are_left_alone() -> None:
    engine = Attributor(Two(), input_size=(4, 4), precision=EXACT, gradient=True)
    found = engine(colour(3.0, 1.0, 0.5), lambda _: (torch.tensor([0, 0]), torch.tensor([1, 2])))
    torch.testing.assert_close(found.deeplift.sum((2, 3))[0], torch.tensor([0.0, 1.0, 0.0], dtype=EXACT))
    assert found.gradient is not None
    torch.testing.assert_close(found.gradient.sum((2, 3))[1], torch.tensor([1.0, 0.0, 1.0], dtype=EXACT))
    torch.testing.assert_close(found.guided.sum((2, 3)), found.gradient.sum((2, 3)))


def test_module_and_rule_compute_the_same_and_gradients_are_torchs() -> None:
    values = torch.randn(20, 9, dtype=EXACT, generator=torch.Generator().manual_seed(0)).requires_grad_()
    module, rule = AboveBest(6), BestAdded(6)
    torch.testing.assert_close(module(values), rule.forward(values), rtol=0, atol=0)
    signal = torch.randn(20, 9, dtype=EXACT, generator=torch.Generator().manual_seed(1))
    (wanted,) = torch.autograd.grad(module(values), values, signal)
    plain = values.detach()
    _, record = rule.record(plain, rule.remember(torch.zeros(1, 9, dtype=EXACT))[1])
    torch.testing.assert_close(rule.backward("gradient", signal, record, plain.shape), wanted)


@pytest.mark.parametrize("seed", range(3))
def test_multipliers_times_changes_sum_to_the_change_whatever_wins(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, x0 = (torch.randn(200, 7, dtype=EXACT, generator=generator).round(decimals=1) for _ in range(2))
    rule = BestAdded(4)
    out0, reference = rule.remember(x0)
    out, record = rule.record(x, reference)
    share = record[1]
    assert share.min() >= 0
    assert share.max() <= 1
    for column in range(7):
        signal = torch.zeros_like(out)
        signal[:, column] = 1
        back = rule.backward("deeplift", signal, record, x.shape)
        torch.testing.assert_close((back * (x - x0)).sum(1), (out - out0)[:, column], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vgg11"])
def test_captum_draws_the_same_maps_of_further_classes(name: str, network_of: Callable[..., Network]) -> None:
    from worker.heads import extended
    from worker.heads.outputs import encode, last_layer

    network = network_of(name, dtype=EXACT)
    inputs = last_layer(network).weight.shape[1]
    weights = torch.randn(2, inputs, generator=torch.Generator().manual_seed(3)).numpy() * inputs**-0.5
    module = extended(network, encode(("Zorb", "Quux"), weights, weights[:, 0])).module
    first = len(network.classes)
    images = torch.randn(2, 3, 64, 64, dtype=EXACT, generator=torch.Generator().manual_seed(4))
    rows, targets = torch.tensor([0, 0, 1]), torch.tensor([first, 1, first + 1])
    # A constant reference makes ties in windows, which rounding breaks by chance.
    reference = torch.randn(1, 3, 64, 64, dtype=EXACT, generator=torch.Generator().manual_seed(5)) / 2
    ours, theirs = (
        engine(module, input_size=(64, 64), precision=EXACT, layers=network.layers[:1], reference=reference)(
            images, lambda _: (rows, targets)
        )
        for engine in (Attributor, CaptumAttributor)
    )
    torch.testing.assert_close(ours.logits, theirs.logits)
    torch.testing.assert_close(ours.deeplift, theirs.deeplift, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(ours.guided, theirs.guided, rtol=1e-7, atol=1e-10)
    for layer in ours.layers:
        torch.testing.assert_close(ours.layers[layer], theirs.layers[layer], rtol=1e-7, atol=1e-10)
