"""Each nonlinear rule against a twin that writes its multipliers out window by window and value by value."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from dense import Twin, batched, cross_max, jacobian, secants
from tiny import EXACT
from torch import Tensor, nn

from worker.rules import METHODS, Nonlinear, bind_module
from worker.rules.blocks import Scratch
from worker.rules.elementwise import ReLU
from worker.rules.rectified_pooling import RectifiedMaxPool


def _step(below: float, above: float) -> Callable[[float], float]:
    return lambda x: float(below < x < above)


def _silu_slope(x: float) -> float:
    gate = 1 / (1 + math.exp(-x))
    return gate * (1 + x * (1 - gate))


ELEMENTWISE: dict[str, tuple[nn.Module, Callable[[float], float]]] = {
    "relu": (nn.ReLU(), _step(0, math.inf)),
    "relu6": (nn.ReLU6(), _step(0, 6)),
    "silu": (nn.SiLU(), _silu_slope),
}
POOLS = {
    "2×2": nn.MaxPool2d(2),
    "3×3 stride 2": nn.MaxPool2d(3, 2),
    "padded": nn.MaxPool2d(3, 2, padding=1),
    "ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "padded ceil": nn.MaxPool2d((2, 3), (2, 3), padding=1, ceil_mode=True),
    "stride 1": nn.MaxPool2d((3, 2), 1),
    "dilated": nn.MaxPool2d(2, 2, dilation=(2, 3)),
    "dilated, padded, ceil": nn.MaxPool2d((3, 2), (2, 1), padding=(1, 1), dilation=(1, 2), ceil_mode=True),
    "gaps": nn.MaxPool2d(2, 3),
}


def _pairs(kind: str, *shape: int) -> tuple[Tensor, Tensor]:
    """Images (3, …) and one reference (1, …) or three; "ties" has many equal values, within and between both."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(3, *shape, generator=generator, dtype=EXACT) * 4
    references = torch.randn(1 if kind == "ties" else 3, *shape, generator=generator, dtype=EXACT) * 4
    if kind == "ties":
        images, references = images.div(2).round() * 2, references.div(2).round() * 2
    if kind == "flat":
        images, references = torch.full_like(images, 1.5), torch.zeros_like(references[:1])
    if kind == "same":
        references = images.clone()
    return images, references


KINDS = pytest.mark.parametrize("kind", ["noise", "ties", "flat", "same"])
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def _check(layer: Nonlinear, module: nn.Module, twins: dict[str, Twin], x: Tensor, x0: Tensor) -> None:
    out0, reference = layer.remember(x0)
    assert torch.equal(out0, module(x0))
    for overwrite in (False, True):
        given = x.clone(memory_format=torch.preserve_format)
        out, record = layer.record(given, reference, overwrite=overwrite)
        assert torch.equal(out, module(x))
        assert overwrite or torch.equal(given, x)
        signal = torch.randn(out.shape, generator=torch.Generator().manual_seed(6), dtype=EXACT)
        for method in METHODS:
            before = signal.clone()
            found = layer.backward(method, signal, record, x.shape)
            right = batched(twins[method], x, x0, signal.relu() if method == "guided" else signal)
            torch.testing.assert_close(found, right, rtol=0, atol=1e-12, msg=method)
            assert torch.equal(signal, before)
    assert torch.equal(layer.forward(x), module(x))


@LAYOUTS
@KINDS
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_rule_is_its_secants(name: str, kind: str, layout: torch.memory_format) -> None:
    module, slope = ELEMENTWISE[name]
    layer = bind_module(module)
    assert isinstance(layer, Nonlinear)

    def gradient(x: Tensor, _: Tensor) -> Tensor:
        return torch.diag(torch.tensor([slope(value) for value in x.flatten().tolist()], dtype=EXACT))

    twins: dict[str, Twin] = {
        "deeplift": lambda x, x0: secants(module, slope, x, x0),
        "guided": gradient,
        "gradient": gradient,
    }
    x, x0 = (part.contiguous(memory_format=layout) for part in _pairs(kind, 2, 4, 5))
    _check(layer, module, twins, x, x0)


@LAYOUTS
@KINDS
@pytest.mark.parametrize("name", POOLS)
def test_max_pooling_is_cross_max(name: str, kind: str, layout: torch.memory_format) -> None:
    pool = POOLS[name]
    layer = bind_module(pool)
    assert isinstance(layer, Nonlinear)
    twins: dict[str, Twin] = {
        "deeplift": lambda x, x0: cross_max(pool, x, x0),
        "gradient": lambda x, _: jacobian(pool, x),
    }
    x, x0 = (part.contiguous(memory_format=layout) for part in _pairs(kind, 2, 7, 8))
    out0, reference = layer.remember(x0)
    assert torch.equal(out0, pool(x0))
    out, record = layer.record(x, reference)
    assert torch.equal(out, pool(x))
    signal = torch.randn(out.shape, generator=torch.Generator().manual_seed(6), dtype=EXACT)
    for method in METHODS:  # guided passes pools as the gradient does, with negative signals too
        found = layer.backward(method, signal, record, x.shape)
        right = batched(twins.get(method, twins["gradient"]), x, x0, signal)
        torch.testing.assert_close(found, right, rtol=0, atol=1e-12, msg=method)


@KINDS
def test_relu_and_pool_as_one_are_both_rules_in_turn(kind: str) -> None:
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    x, x0 = (part.contiguous(memory_format=torch.channels_last) for part in _pairs(kind, 3, 6, 8))

    def gradient(image: Tensor, _: Tensor) -> Tensor:
        return jacobian(pool, relu(image)) @ torch.diag((image > 0).to(EXACT).flatten())

    twins: dict[str, Twin] = {
        "deeplift": lambda a, b: cross_max(pool, relu(a), relu(b)) @ secants(relu, _step(0, math.inf), a, b),
        "guided": gradient,
        "gradient": gradient,
    }
    _check(RectifiedMaxPool(), nn.Sequential(relu, pool), twins, x, x0)


def test_a_large_activation_in_pieces_is_the_same_as_whole() -> None:
    """Larger than one cache-sized piece, with one reference for all images."""
    generator = torch.Generator().manual_seed(7)
    x, x0 = (torch.randn(n, 16, 100, 102, generator=generator) for n in (3, 1))
    for layout in (torch.contiguous_format, torch.channels_last):
        a, b = x.contiguous(memory_format=layout), x0.contiguous(memory_format=layout)
        _, (secant, slope) = ReLU().record(a, ReLU().remember(b)[1])
        assert torch.equal(slope, (x > 0).float())
        torch.testing.assert_close(secant, (x.relu() - x0.relu()) / (x - x0), rtol=1e-4, atol=1e-4)
    _, (factor, mask) = RectifiedMaxPool().record(x, RectifiedMaxPool().remember(x0)[1])
    for i in range(3):
        _, (alone, place) = RectifiedMaxPool().record(x[i : i + 1], RectifiedMaxPool().remember(x0)[1])
        assert torch.equal(factor[i : i + 1], alone)
        assert torch.equal(mask[i : i + 1], place)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_secant_is_as_exact_as_its_inputs(dtype: torch.dtype) -> None:
    """No difference of rounded outputs: the error is that of a division, however close both inputs are."""
    base = torch.linspace(-3, 3, 301).to(dtype)
    step = torch.finfo(dtype).eps
    x = torch.cat([base, base, base])
    x0 = torch.cat([base * (1 + step), base.flip(0), base]).to(dtype)
    right = torch.where(
        x == x0, (x > 0).double(), (x.double().relu() - x0.double().relu()) / (x.double() - x0.double())
    )
    out, (secant, slope) = ReLU().record(x[None], ReLU().remember(x0[None])[1])
    assert torch.equal(out[0], x.relu())
    assert torch.equal(slope[0], (x > 0).to(dtype))
    assert (secant[0].double() - right).abs().max() <= 2 * step
    assert secant.min() >= 0
    assert secant.max() <= 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_scratch_memory_lies_as_what_it_is_for(layout: torch.memory_format) -> None:
    x = torch.zeros(2, 3, 4, 5).contiguous(memory_format=layout)
    scratch = Scratch(x)
    found = scratch.alike("a", x)
    assert found.shape == x.shape
    assert found.stride() == x.stride()
    assert scratch.alike("a", x).data_ptr() == found.data_ptr()
    assert scratch.alike("b", x).data_ptr() != found.data_ptr()
    assert scratch.alike("a", x.flatten()).shape == (120,)
