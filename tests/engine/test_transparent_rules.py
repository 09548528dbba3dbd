"""Each transparent rule against the dense Jacobian of the torch module that it stands for."""

from __future__ import annotations

import pytest
import torch
from dense import batched, jacobian
from tiny import EXACT, seeded
from torch import Tensor, nn

from worker.attribution.preparing import folded
from worker.attribution.tracing import convert
from worker.rules import Transparent, bind_call, bind_module
from worker.rules.linear import Affine, Convolution, FullyConnected
from worker.rules.packed import PackedConvolution, can_pack, pack_convolution, pack_linear

LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "padded": lambda: nn.Conv2d(4, 3, (3, 5), padding=(1, 2)),
    "strided": lambda: nn.Conv2d(4, 3, 3, stride=(2, 3), padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4, stride=2, bias=False),
    "dilated": lambda: nn.Conv2d(4, 2, 3, dilation=(2, 1), padding=(0, 1)),
    "all at once": lambda: nn.Conv2d(4, 4, (2, 3), stride=(1, 2), dilation=2, padding=(1, 2), groups=2),
    "more padding than kernel": lambda: nn.Conv2d(4, 2, 1, padding=2),
    "valid": lambda: nn.Conv2d(4, 2, 3, padding="valid"),
    "same": lambda: nn.Conv2d(4, 2, (3, 5), padding="same", dilation=(2, 1)),
    "norm": lambda: nn.BatchNorm2d(4),
    "norm alone": lambda: nn.BatchNorm2d(4, affine=False),
    "mean pool": lambda: nn.AvgPool2d(2),
    "overlapping mean pool": lambda: nn.AvgPool2d(3, 2, padding=1),
    "mean pool without padding": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False, ceil_mode=True),
    "mean pool with divisor": lambda: nn.AvgPool2d((2, 3), divisor_override=5),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive to one": lambda: nn.AdaptiveAvgPool2d(1),
    "adaptive to more": lambda: nn.AdaptiveAvgPool2d((9, 4)),
    "adaptive with None": lambda: nn.AdaptiveAvgPool2d((None, 3)),
    "flatten": lambda: nn.Flatten(),
    "flatten some": lambda: nn.Flatten(2, 3),
    "identity": lambda: nn.Identity(),
    "dropout": lambda: nn.Dropout(0.9),
    "dropout of channels": lambda: nn.Dropout2d(0.9),
    "zero pad": lambda: nn.ZeroPad2d((1, 2, 0, 3)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4 * 7 * 6, 5)),
}


def _input(*shape: int, dtype: torch.dtype = EXACT, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=EXACT).to(dtype)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_a_transparent_rule_is_the_jacobian(name: str, layout: torch.memory_format) -> None:
    module = seeded(LAYERS[name])
    x = _input(2, 4, 7, 6).contiguous(memory_format=layout)
    if isinstance(module, nn.Sequential):
        x, module = x.flatten(1), module[1]
    layer = bind_module(module)
    assert isinstance(layer, Transparent)
    layer = convert(layer, lambda tensor: tensor.to(EXACT))
    out = layer.forward(x)
    torch.testing.assert_close(out, module(x).detach(), rtol=0, atol=1e-12)
    signal = _input(*out.shape, seed=1)
    (found,) = layer.backward(signal, [x.shape])
    right = batched(lambda a, _: jacobian(module, a), x, x, signal)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-12)
    assert torch.equal(signal, _input(*out.shape, seed=1)), "the signal is somebody else's too"


CALLS = {
    "add": (torch.add, lambda a, b: ((a, b), {}), ((2, 4, 3, 3), (2, 4, 3, 3))),
    "cat": (torch.cat, lambda a, b: (([a, b],), {"dim": 1}), ((2, 4, 3, 3), (2, 2, 3, 3))),
    "concat": (torch.concat, lambda a, b: (([a, b], 2), {}), ((2, 4, 3, 3), (2, 4, 2, 3))),
    "cat from behind": (torch.cat, lambda a, b: (([a, b], -1), {}), ((2, 4, 3, 3), (2, 4, 3, 5))),
    "mean": (torch.mean, lambda a: ((a, (2, 3)), {}), ((2, 4, 3, 5),)),
    "mean that keeps": ("mean", lambda a: ((a,), {"dim": [-1, 1], "keepdim": True}), ((2, 4, 3, 5),)),
    "view": ("view", lambda a: ((a, 2, -1), {}), ((2, 4, 3, 5),)),
    "view of any number": ("view", lambda a: ((a, -1, 60), {}), ((2, 4, 3, 5),)),
    "reshape": (torch.reshape, lambda a: ((a, (-1, 60)), {}), ((2, 4, 3, 5),)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_function_of_several_inputs_is_the_jacobian(name: str) -> None:
    target, arguments, shapes = CALLS[name]
    inputs = [_input(*shape, seed=i) for i, shape in enumerate(shapes)]

    def call(*tensors: Tensor) -> Tensor:
        args, kwargs = arguments(*tensors)
        result: Tensor = (
            getattr(args[0], target)(*args[1:], **kwargs) if isinstance(target, str) else target(*args, **kwargs)
        )
        return result

    layer = bind_call(target, *arguments(*inputs))
    assert isinstance(layer, Transparent)
    out = layer.forward(*inputs)
    assert torch.equal(out, call(*inputs))
    signal = _input(*out.shape, seed=9)
    found = layer.backward(signal, [x.shape for x in inputs])
    _, right = torch.autograd.functional.vjp(call, tuple(inputs), signal)
    assert len(found) == len(inputs)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_a_batch_norm_becomes_part_of_the_convolution() -> None:
    conv, norm = seeded(lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False)), seeded(lambda: nn.BatchNorm2d(6))
    first, second = bind_module(conv), bind_module(norm)
    assert isinstance(first, Convolution)
    assert isinstance(second, Affine)
    x = _input(2, 4, 7, 6)
    torch.testing.assert_close(folded(first, second).forward(x), norm(conv(x)), rtol=0, atol=1e-12)


PACKED = [name for name in LAYERS if isinstance(LAYERS[name](), nn.Conv2d) and name not in ("valid", "same")]


@pytest.mark.skipif(not can_pack(torch.float32, torch.device("cpu")), reason="this processor's torch has no oneDNN")
@pytest.mark.parametrize("name", PACKED)
def test_weights_laid_out_for_the_processor_do_the_same(name: str) -> None:
    module = seeded(LAYERS[name], dtype=torch.float32)
    plain = bind_module(module)
    assert isinstance(plain, Convolution)
    x = _input(2, 4, 9, 8, dtype=torch.float32)
    out = plain.forward(x)
    packed = pack_convolution(plain, x.shape, out.shape)
    assert isinstance(packed, PackedConvolution)
    torch.testing.assert_close(packed.forward(x), out, rtol=1e-5, atol=1e-5)
    signal, factor = _input(*out.shape, dtype=torch.float32, seed=1), x.abs()
    right = batched(lambda a, _: jacobian(module.double(), a), x.double(), x.double(), signal.double()).float()
    torch.testing.assert_close(packed.backward(signal, [x.shape])[0], right, rtol=1e-5, atol=1e-5)
    if packed.can_scale:
        scaled = packed.backward_scaled(signal, factor, clip=False)
        torch.testing.assert_close(scaled, right * factor, rtol=1e-5, atol=1e-5)
        clipped = packed.backward_scaled(signal, factor, clip=True)
        torch.testing.assert_close(clipped, (right * factor).relu(), rtol=1e-5, atol=1e-5)
    assert packed.can_scale == (name in ("plain", "padded", "grouped", "dilated"))


@pytest.mark.skipif(
    not can_pack(torch.bfloat16, torch.device("cpu")), reason="this processor's torch has no oneDNN"
)
def test_a_packed_linear_layer_does_the_same() -> None:
    module = seeded(lambda: nn.Linear(40, 30), dtype=torch.bfloat16)
    plain = bind_module(module)
    assert isinstance(plain, FullyConnected)
    packed = pack_linear(plain, 8)
    x, signal = _input(3, 40, dtype=torch.bfloat16), _input(3, 30, dtype=torch.bfloat16, seed=1)
    torch.testing.assert_close(packed.forward(x), module(x).detach(), rtol=1e-2, atol=1e-2)
    (found,) = packed.backward(signal, [x.shape])
    right = (signal.float() @ module.weight.detach().float()).bfloat16()
    torch.testing.assert_close(found, right, rtol=1e-2, atol=1e-2)
