"""Random small networks of all supported layers: complete, and equal to torch's and captum's own.

BOXLIFT_TEST_EXAMPLES=50 tries fifty times as many, other ones each time.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st
from tiny import EXACT, noise, seeded
from torch import Tensor, nn

from worker.attribution import Attributor
from worker.captum_engine import CaptumAttributor

CLASSES, CHANNELS = 4, 4
KINDS = (
    "conv",
    "norm",
    "relu",
    "relu-pool",
    "max",
    "mean",
    "sum",
    "cat",
    "tall cat",
    "pad",
    "none",
    "call",
    "again",
)
TIMES = int(os.environ.get("BOXLIFT_TEST_EXAMPLES", "1"))


class _Sum(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


class _Cat(_Sum):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], 1)


class _TallCat(_Sum):
    """Below each other."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.concat([self.first(x), self.second(x)], -2)


class _Again(nn.Module):
    """One layer and one ReLU, both called twice."""

    def __init__(self, channels: int, inplace: bool) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(channels, channels, 3, padding="same"), nn.ReLU(inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.conv(x))))


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "method": lambda x: x.relu(),
    "relu6": F.relu6,
    "in place": lambda x: F.relu(x, inplace=True),
    "pool": lambda x: F.max_pool2d(x, (2, 1), ceil_mode=True),
    "mean pool": lambda x: F.avg_pool2d(x, 2, 1, 1, divisor_override=3),
    "reshape": lambda x: x.flatten(2).flatten(1).view(-1, x.shape[1] * x.shape[2] * x.shape[3]),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
}


class _Call(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return CALLS[self.name](x)


class _Mean(nn.Module):
    """Rows and columns are averaged, and then the head sees vectors."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True).reshape(-1, x.shape[1])


EXACT_KINDS = ("conv", "norm", "relu", "relu-pool", "max", "sum", "cat", "tall cat", "pad", "none", "again")
"""Without means, which round, and without ReLU6, in whose upper kink captum's gradient is not torch's."""


def _rectifiers(inplace: bool, *, exact: bool = False) -> list[Callable[[], nn.Module]]:
    return [lambda: nn.ReLU(inplace)] if exact else [lambda: nn.ReLU(inplace), lambda: nn.ReLU6(inplace)]


@st.composite
def _convolutions(draw: st.DrawFn, before: int) -> nn.Module:
    """CHANNELS outputs; any kernel, stride, padding, dilation and groups."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(pair), draw(st.tuples(st.integers(1, 2), st.integers(1, 2))), draw(pair)
    padding = draw(st.one_of(st.just("valid"), st.tuples(st.integers(0, 3), st.integers(0, 3))))
    groups = draw(st.sampled_from([n for n in (1, 2, 4) if before % n == 0]))
    return nn.Conv2d(before, CHANNELS, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))


@st.composite
def _max_pools(draw: st.DrawFn) -> nn.Module:
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    padding = draw(st.tuples(*(st.integers(0, size // 2) for size in kernel)))
    return nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=draw(st.booleans()))


@st.composite
def _average_pools(draw: st.DrawFn) -> nn.Module:
    if draw(st.booleans()):
        return nn.AdaptiveAvgPool2d(draw(st.tuples(st.integers(1, 5), st.integers(1, 5))))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(*(st.integers(0, size // 2) for size in kernel)))
    return nn.AvgPool2d(
        kernel,
        draw(st.tuples(st.integers(1, 2), st.integers(1, 3))),
        padding,
        ceil_mode=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
        divisor_override=draw(st.sampled_from([None, None, 5])),
    )


@st.composite
def _same_size(draw: st.DrawFn, before: int, *, exact: bool) -> nn.Module:
    """A branch that keeps height and width."""
    conv = nn.Conv2d(before, before, 3, padding=1, groups=draw(st.sampled_from([1, before])))
    rest = draw(
        st.lists(st.sampled_from([*_rectifiers(False, exact=exact), lambda: nn.BatchNorm2d(before)]), max_size=3)
    )
    pool = [nn.MaxPool2d(3, 1, padding=1)] if draw(st.booleans()) else []
    return nn.Sequential(conv, *(make() for make in rest), *pool)


@st.composite
def _networks(draw: st.DrawFn, *, silu: bool, exact: bool = False) -> Callable[[], nn.Module]:
    """Made when called, so that its weights are drawn from the test's own seed. captum does not know SiLU."""
    layers: list[nn.Module] = [draw(_convolutions(3))]
    channels = CHANNELS
    for kind in draw(
        st.lists(
            st.sampled_from(EXACT_KINDS if exact else (*KINDS, "silu") if silu else KINDS), min_size=1, max_size=6
        )
    ):
        match kind:
            case "conv":
                layers.append(draw(_convolutions(channels)))
                channels = CHANNELS
            case "norm":
                layers.append(nn.BatchNorm2d(channels))
            case "relu":
                layers.append(draw(st.sampled_from(_rectifiers(draw(st.booleans()))))())
            case "relu-pool":
                layers += [nn.ReLU(draw(st.booleans())), nn.MaxPool2d(2, ceil_mode=draw(st.booleans()))]
            case "max":
                layers.append(draw(_max_pools()))
            case "mean":
                layers.append(draw(_average_pools()))
            case "sum" | "cat" | "tall cat":
                second = draw(st.one_of(_same_size(channels, exact=exact), st.builds(nn.Identity)))
                make = {"sum": _Sum, "cat": _Cat, "tall cat": _TallCat}[kind]
                layers.append(make(draw(_same_size(channels, exact=exact)), second))
                channels *= 2 if kind == "cat" else 1
            case "call":
                layers.append(_Call(draw(st.sampled_from([name for name in CALLS if name != "reshape"]))))
            case "again":
                layers.append(_Again(channels, draw(st.booleans())))
            case "silu":
                layers.append(nn.SiLU(draw(st.booleans())))
            case "pad":
                layers.append(nn.ZeroPad2d(draw(st.tuples(*[st.integers(0, 2)] * 4))))
            case "none":
                layers.append(draw(st.sampled_from([nn.Identity, nn.Dropout, nn.Dropout2d]))())
    head = draw(st.sampled_from(["mean", "conv"] if exact else ["flat", "called", "mean", "conv"]))
    if head in ("flat", "called"):
        flatten = nn.Flatten() if head == "flat" else _Call("reshape")
        layers += [nn.AdaptiveAvgPool2d(2), flatten, nn.Linear(channels * 4, 6), nn.ReLU(), nn.Linear(6, CLASSES)]
    elif head == "mean":
        layers += [_Mean(), nn.Linear(channels, CLASSES)]
    else:
        layers += [nn.Conv2d(channels, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _again(nn.Sequential(*layers))


def _again(module: nn.Module) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.reset_parameters()
                with torch.no_grad():
                    part.weight.mul_(2)  # so that signals live, and ReLU6 clips now and then
        return module

    return make


def _out_of_place(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module)
    for part in twin.modules():
        if isinstance(part, _Call) and part.name == "in place":
            part.name = "relu"
        if isinstance(part, nn.ReLU | nn.ReLU6 | nn.SiLU):
            part.inplace = False
    return twin


def _fits(module: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            logits: Tensor = module(images.clone())
    except RuntimeError:  # too small for a kernel
        return False
    return bool(logits.isfinite().all())  # a dilated window may see nothing but padding: its maximum is -inf


COMMON = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # making a failing network smaller takes minutes
    derandomize=TIMES == 1,  # the same networks each time: a failure can be seen again
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
ARGUMENTS = {
    "make": _networks(silu=True),
    "seed": st.integers(0, 1000),
    "height": st.integers(6, 15),
    "width": st.integers(6, 15),
    "scale": st.sampled_from([0.5, 3.0, 20.0]),
}


def _prepare(
    make: Callable[[], nn.Module], seed: int, height: int, width: int, scale: float
) -> tuple[nn.Module, Tensor, Tensor]:
    module = seeded(make, seed)
    images = noise(2, height, width, seed=seed) * scale
    note(f"{module} on {height}×{width}")
    assume(_fits(module, images))
    return module, images, noise(1, height, width, seed=seed + 1)


@settings(COMMON, max_examples=200 * TIMES)
@given(**ARGUMENTS)
def test_logits_gradients_and_completeness(
    make: Callable[[], nn.Module], seed: int, height: int, width: int, scale: float
) -> None:
    module, images, reference = _prepare(make, seed, height, width, scale)
    engine = Attributor(
        module, input_size=(height, width), precision=EXACT, reference=reference, gradient=True, layers=["0"]
    )
    targets = torch.tensor([seed % CLASSES, 1])
    found = engine(images, targets)
    leaf = images.clone().requires_grad_()
    logits = _out_of_place(module)(leaf)  # autograd refuses some layers in place
    logits[torch.arange(2), targets].sum().backward()
    size = max(1.0, float(logits.detach().abs().max()))
    torch.testing.assert_close(found.logits, logits.detach(), rtol=0, atol=1e-11 * size)
    torch.testing.assert_close(found.gradient, leaf.grad, rtol=1e-9, atol=1e-11 * size)
    assert found.delta.abs().max() <= 1e-11 * size
    with torch.no_grad():
        change = logits.detach() - module(reference.clone())
    change = change[torch.arange(2), targets]
    torch.testing.assert_close(found.deeplift.sum((1, 2, 3)), change, rtol=0, atol=1e-11 * size)
    torch.testing.assert_close(found.layers["0"].sum((1, 2)), change, rtol=0, atol=1e-11 * size)


@settings(COMMON, max_examples=100 * TIMES)
@given(**{**ARGUMENTS, "make": _networks(silu=False)})
def test_maps_are_those_of_captum_made_right(
    make: Callable[[], nn.Module], seed: int, height: int, width: int, scale: float
) -> None:
    module, images, reference = _prepare(make, seed, height, width, scale)
    _same_as_captum(module, images, "blur" if seed % 4 == 0 else reference, seed)


def _same_as_captum(module: nn.Module, images: Tensor, reference: Tensor | str, seed: int) -> None:
    targets = torch.tensor([seed % CLASSES, 1])
    size = (images.shape[2], images.shape[3])
    ours, captums = (
        engine(module, input_size=size, precision=EXACT, reference=reference)(images, targets)
        for engine in (Attributor, CaptumAttributor)
    )
    for found, right in ((ours.deeplift, captums.deeplift), (ours.guided, captums.guided)):
        assert float((found - right).norm()) <= 1e-12 * max(1.0, float(right.norm()))


@torch.no_grad()
def _quantised(module: nn.Module) -> None:
    """Weights and statistics on a grid, so that sums are exact and equal values stay equal."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.copy_((part.weight * 4).round() / 4)
            if part.bias is not None:
                part.bias.copy_((part.bias * 4).round() / 4)
        if isinstance(part, nn.BatchNorm2d):
            assert isinstance(part.running_mean, Tensor)
            assert isinstance(part.running_var, Tensor)
            part.eps = 0
            part.weight.fill_(1)
            part.running_var.fill_(1)
            for value in (part.running_mean, part.bias):
                value.copy_((value * 4).round() / 4)


@settings(COMMON, max_examples=100 * TIMES)
@given(**{**ARGUMENTS, "make": _networks(silu=False, exact=True), "shared": st.integers(0, 15)})
def test_ties_are_treated_as_captum_does(
    make: Callable[[], nn.Module], seed: int, height: int, width: int, scale: float, shared: int
) -> None:
    """Equal values inside windows, and images that equal the reference in their first columns."""
    module, images, reference = _prepare(make, seed, height, width, 1.0)
    _quantised(module)
    images, reference = images.round(), reference.round()
    images[..., :shared] = reference[..., :shared]
    _same_as_captum(module, images, reference, seed)


@settings(COMMON, max_examples=100 * TIMES)
@given(**ARGUMENTS)
def test_float32_is_near_float64(
    make: Callable[[], nn.Module], seed: int, height: int, width: int, scale: float
) -> None:
    """Weights laid out for the processor, and rules fused with convolutions, are used in float32 only."""
    module, images, reference = _prepare(make, seed, height, width, scale)
    module, images, reference = module.float(), images.float(), reference.float()
    targets = torch.tensor([seed % CLASSES, 1])
    single = Attributor(module, input_size=(height, width), precision=torch.float32, reference=reference)
    double = Attributor(module.double(), input_size=(height, width), precision=EXACT, reference=reference.double())
    found, right = single(images, targets), double(images.double(), targets)
    size = max(1.0, float(right.deeplift.abs().sum((1, 2, 3)).max()))
    assert found.delta.abs().max() <= 1e-5 * size
    for a, b in ((found.deeplift, right.deeplift), (found.guided, right.guided)):
        assert (a.double() - b).norm() <= 1e-3 * b.norm() + 1e-6
