"""The network and the images are read, never changed; a layer without a rule is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import EXACT, noise, seeded
from torch import Tensor, nn

from worker.attribution import Attributor
from worker.captum_engine import CaptumAttributor
from worker.errors import NetworkError, UnsupportedLayerError


class _Net(nn.Module):
    """In-place layers, a shared ReLU, a batch norm, a dropout, and forward code that keeps what it saw."""

    def __init__(self, odd: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.odd = odd or nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        self.last = x
        x = self.odd(x)
        return self.head(self.drop(self.relu(x).mean((2, 3))))


def _state(module: nn.Module) -> dict[str, object]:
    """Everything that can be seen of a module, with copies of its numbers."""
    state: dict[str, object] = {}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            state[f"{name}|{key}"] = dict(value) if isinstance(value, dict) else value
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        state[f"{name}|number"] = tensor.detach().tolist()
        state[f"{name}|about"] = (tensor.data_ptr(), tensor.dtype, tensor.stride(), tensor._version)
        state[f"{name}|grad"] = (tensor.requires_grad, tensor.grad)
    return state


def _same(after: dict[str, object], before: dict[str, object]) -> None:
    assert after.keys() == before.keys()
    for key, value in before.items():
        if isinstance(value, dict):
            now = after[key]
            assert isinstance(now, dict)
            assert list(now) == list(value), key
            assert all(now[name] is value[name] for name in value), key
        elif isinstance(value, list | tuple):
            assert after[key] == value, key
        else:
            assert after[key] is value, key


def _hooked(module: nn.Module, calls: list[str]) -> None:
    module.register_forward_hook(lambda *_: calls.append("root"))
    for part in module.modules():
        part.register_forward_pre_hook(lambda *_: calls.append("pre"))
        part.register_forward_hook(lambda *_: calls.append("forward"))
        part.register_full_backward_hook(lambda *_: calls.append("backward"))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
def test_nothing_is_left_on_the_network(precision: torch.dtype, training: bool) -> None:
    module = seeded(_Net, dtype=torch.float32).train(training)
    module.head.bias.requires_grad_(False)
    calls: list[str] = []
    _hooked(module, calls)
    before = _state(module)
    images = noise(2, 8, 8, dtype=torch.float32).requires_grad_()
    held, grad_mode = images.detach().clone(), torch.is_grad_enabled()
    for reference in (0.0, "blur"):
        engine = Attributor(
            module, input_size=(8, 8), precision=precision, layers=["conv", "relu"], reference=reference
        )
        found = engine(images, torch.tensor([0, 2]))
        assert not found.deeplift.requires_grad
    assert calls == []
    _same(_state(module), before)
    assert torch.equal(images, held)
    assert images.grad is None
    assert torch.is_grad_enabled() == grad_mode


class _Odd(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


UNKNOWN: dict[str, tuple[nn.Module, str]] = {
    "module": (nn.GELU(), r"layer 'odd' \(GELU\) of _Net"),
    "leaky": (nn.LeakyReLU(), r"'odd' \(LeakyReLU\)"),
    "softmax": (nn.Softmax(1), r"'odd' \(Softmax\)"),
    "group norm": (nn.GroupNorm(2, 4), r"'odd' \(GroupNorm\)"),
    "reflecting": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), r"'odd' \(Conv2d\)"),
    "without statistics": (nn.BatchNorm2d(4, track_running_stats=False), r"'odd' \(BatchNorm2d\)"),
    "nested": (nn.Sequential(nn.Identity(), nn.Sigmoid()), r"'odd\.1' \(Sigmoid\)"),
    "function": (_Odd(torch.tanh), "tanh"),
    "product": (_Odd(lambda x: x * x.mean((2, 3), keepdim=True)), "mul"),
    "factor": (_Odd(lambda x: 2 * x), "mul"),
    "slice beside": (_Odd(lambda x: torch.cat([x[:, :2], x], 1)), "getitem"),
    "factor beside": (_Odd(lambda x: torch.cat([x, 2 * x], 1)), "mul"),
    "constant": (_Odd(lambda x: x + torch.ones(4, 1, 1)), "add"),
    "number": (_Odd(lambda x: x + 1), "add"),
    "difference": (_Odd(lambda x: x - F.relu(x)), "sub"),
    "weighted sum": (_Odd(lambda x: torch.add(x, x.relu(), alpha=2)), "add"),
    "broadcast": (_Odd(lambda x: x + x.mean((2, 3), keepdim=True)), "different shapes"),
    "along the images": (_Odd(lambda x: torch.cat([x, x], 0)), "cat"),
    "along the images from behind": (_Odd(lambda x: torch.cat([x, x], -4)), "cat"),
    "a mean of the images": (_Odd(lambda x: x.mean((0, 1), keepdim=True)), "mean"),
    "depends on values": (_Odd(lambda x: x if x.sum() > 0 else x.relu()), "cannot be traced"),
    "raises": (_Odd(lambda x: 1 / 0), "cannot be traced"),  # type: ignore[arg-type, return-value]
    "uneven padding": (nn.Conv2d(4, 4, 2, padding="same"), r"'odd' \(Conv2d\)"),
    "other shape": (_Odd(lambda x: x.view(-1, 64, 2, 2)), "view"),
    "too small": (nn.MaxPool2d(50), "does not take input of size 8×8"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_layer_without_a_rule_is_named_and_nothing_is_left(name: str) -> None:
    odd, message = UNKNOWN[name]
    module = _Net(odd).train()
    before = _state(module)
    with pytest.raises(UnsupportedLayerError, match=message):
        Attributor(module, input_size=(8, 8))
    _same(_state(module), before)


class _Views(nn.Module):
    """Works in place on what another name still stands for."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.head, self.relu = nn.Conv2d(3, 2, 3, padding=1), nn.Linear(128, 3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        match self.kind:
            case "sum":
                y = x
                y += x.relu()
                return self.head(x.flatten(1))
            case "flat":
                flat = torch.flatten(x, 1)
                F.relu(flat, inplace=True)
                return self.head(x.flatten(1))
            case "round":
                flat = x.view(-1, 128)
                self.relu(x)
                return self.head(flat)
            case _:
                flat = self.relu(torch.flatten(x, 1))  # nobody reads x any more
                return self.head(flat)


@pytest.mark.parametrize("engine", [Attributor, CaptumAttributor])
@pytest.mark.parametrize("kind", ["sum", "harmless"])
def test_what_works_in_place_changes_all_its_names(kind: str, engine: type[Attributor]) -> None:
    module, images = seeded(lambda: _Views(kind)), noise(2, 8, 8)
    found = engine(module, input_size=(8, 8), precision=EXACT)(images, torch.tensor([0, 1]))
    with torch.no_grad():
        torch.testing.assert_close(found.logits, module(images.clone()), rtol=0, atol=1e-12)
    assert found.delta.abs().max() <= 1e-12


@pytest.mark.parametrize("engine", [Attributor, CaptumAttributor])
@pytest.mark.parametrize("kind", ["flat", "round"])
def test_working_in_place_on_shared_memory_is_refused(kind: str, engine: type[Attributor]) -> None:
    with pytest.raises(UnsupportedLayerError, match=r"layer 'relu' .*works in place on memory"):
        engine(seeded(lambda: _Views(kind)), input_size=(8, 8), precision=EXACT)


class _Fork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aside = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize("engine", [Attributor, CaptumAttributor])
def test_an_inner_layer_that_does_not_lead_to_the_logits_is_named(engine: type[Attributor]) -> None:
    with pytest.raises(NetworkError, match="layer 'aside' does not lead to the logits"):
        engine(seeded(_Fork), input_size=(8, 8), layers=["aside"])


def test_no_images_are_refused() -> None:
    for engine in (Attributor, CaptumAttributor):
        attributor = engine(seeded(_Net), input_size=(8, 8), precision=EXACT)
        with pytest.raises(ValueError, match="there are no images"):
            attributor(noise(0, 8, 8), torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("kind", [Attributor, CaptumAttributor])
def test_an_exception_on_the_way_back_leaves_everything_usable(
    kind: type[Attributor], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = seeded(_Twice)
    before = _state(module)
    engine = kind(module, input_size=(8, 8), precision=EXACT)
    images, targets = noise(2, 8, 8), torch.tensor([0, 1])
    right = engine(images, targets)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no way back")

    with monkeypatch.context() as patch:
        patch.setattr("worker.attribution.attributor.run_body_backward", fail)
        patch.setattr("torch.autograd.grad", fail)  # captum's way back
        with pytest.raises(RuntimeError, match="no way back"):
            engine(images, targets)
    _same(_state(module), before)
    assert torch.equal(engine(images, targets).deeplift, right.deeplift)
    assert torch.is_grad_enabled()


class _Twice(nn.Module):
    """One ReLU called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.relu(self.conv(x)).mean((2, 3))))


def test_a_failing_choice_leaves_everything_usable() -> None:
    module = seeded(_Net)
    before = _state(module)
    engine = Attributor(module, input_size=(8, 8), precision=EXACT)
    images = noise(2, 8, 8)
    right = engine(images, torch.tensor([0, 1]))

    def fail(logits: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError("no choice")

    with pytest.raises(RuntimeError, match="no choice"):
        engine(images, fail)
    _same(_state(module), before)
    assert torch.equal(engine(images, torch.tensor([0, 1])).deeplift, right.deeplift)


def test_arguments_that_do_not_fit_are_refused() -> None:
    engine = Attributor(seeded(_Net), input_size=(8, 8), precision=EXACT)
    images = noise(2, 8, 8)
    for wrong in (images[0], images[:, :2], images[..., 1:]):
        with pytest.raises(ValueError, match=r"not \(N, 3, 8, 8\)"):
            engine(wrong, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"must both be \(R,\)"):
        engine(images, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"classes must lie in 0…2"):
        engine(images, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"images outside 0…1"):
        engine(images, lambda _: (torch.tensor([2]), torch.tensor([0])))
    with pytest.raises(ValueError, match="use 'mean', 'blur'"):
        Attributor(seeded(_Net), input_size=(8, 8), reference="black")


def test_an_inner_layer_that_is_not_there_or_no_image_is_named() -> None:
    with pytest.raises(NetworkError, match=r"no layer 'con' in the network: its layers are conv, norm"):
        Attributor(seeded(_Net), input_size=(8, 8), layers=["con"])
    with pytest.raises(NetworkError, match=r"'head' has no height and width"):
        Attributor(seeded(_Net), input_size=(8, 8), layers=["head"])
