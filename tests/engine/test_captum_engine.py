"""captum as an engine: the same maps as ours, where stock captum gives others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from random_networks import build_random
from tiny import EXACT, as_image, distance, first_channel, noise, seeded
from torch import Tensor, nn

from worker.attribution import Attribution, Attributor
from worker.captum_engine import CaptumAttributor
from worker.errors import NetworkError, UnsupportedLayerError
from worker.networks import NETWORKS, load_network

SIZE = (64, 64)
SINGLE = torch.float32


def _images(count: int = 2, dtype: torch.dtype = EXACT, size: tuple[int, int] = SIZE) -> Tensor:
    return noise(count, *size, seed=2, dtype=dtype)


def _both(module: nn.Module, images: Tensor, choose: object, **options: object) -> tuple[Attribution, Attribution]:
    options = {"input_size": tuple(images.shape[2:]), "precision": images.dtype, **options}
    return CaptumAttributor(module, **options)(images, choose), Attributor(module, **options)(images, choose)  # type: ignore[arg-type]


def _same(captum: Attribution, ours: Attribution, tolerance: float) -> None:
    assert torch.equal(captum.rows, ours.rows)
    assert torch.equal(captum.targets, ours.targets)
    maps: Mapping[str, tuple[Tensor, Tensor]] = {
        "logits": (captum.logits, ours.logits),
        "deeplift": (captum.deeplift, ours.deeplift),
        "guided": (captum.guided, ours.guided),
        **{name: (captum.layers[name], ours.layers[name]) for name in ours.layers},
    }
    assert set(captum.layers) == set(ours.layers)
    for name, (found, right) in maps.items():
        assert found.shape == right.shape, name
        assert found.dtype == right.dtype, name
        assert distance(found, right) <= tolerance, name


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "squeezenet1_1", "resnet18"])
def test_both_engines_give_the_same_maps(name: str) -> None:
    """The reference is no constant one: rounding would break the ties that it makes in windows by chance."""
    module, reference = build_random(name), noise(1, *SIZE, seed=3) / 2
    captum, ours = _both(module, _images(), torch.tensor([1, 3]), layers=NETWORKS[name].layers, reference=reference)
    _same(captum, ours, 1e-12)
    assert captum.delta.abs().max() <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_agrees_in_float64(name: str) -> None:
    """Small images: grouped convolutions take minutes in float64."""
    size = (71, 71) if name == "xception" else (64, 64) if name.startswith(("squeeze", "alex")) else (48, 48)
    module, reference = build_random(name), noise(1, *size, seed=3) / 2
    images = noise(1, *size, seed=2)
    captum, ours = _both(module, images, torch.tensor([2]), layers=NETWORKS[name].layers, reference=reference)
    _same(captum, ours, 1e-12)


def test_both_engines_agree_on_the_real_efficientnet() -> None:
    """In float32: grouped convolutions take minutes in float64."""
    network = load_network("efficientnet_lite0")
    images = F.interpolate(_images(1, SINGLE, (5, 5)), SIZE, mode="bicubic")  # smooth, as photos are
    _same(*_both(network.module, images, torch.tensor([282]), layers=["relu1"]), 2e-3)


def test_xception_whose_relus_share_their_input_agrees_too() -> None:
    module = build_random("xception", dtype=SINGLE)
    _same(*_both(module, _images(1, SINGLE, (71, 71)), torch.tensor([2])), 1e-4)


def test_several_rows_of_one_image_and_a_blurred_reference() -> None:
    def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([1, 0, 1]), torch.tensor([0, 4, 2])

    captum, ours = _both(build_random("squeezenet1_1"), _images(), choose, reference="blur")
    _same(captum, ours, 1e-12)


class _Everything(nn.Module):
    """What trips captum: a ReLU used twice, in place or as function; overlapping pools; inputs of many readers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.third = nn.Conv2d(12, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.relu6 = nn.ReLU6(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.wide = nn.MaxPool2d((3, 2), (2, 1), ceil_mode=True)
        self.drop = nn.Dropout2d(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.first(x)))
        y = F.relu(self.second(x), inplace=True)
        y += x
        z = self.relu6(4 * y)
        x = torch.cat([F.max_pool2d(y, 2), self.wide(z)[..., : y.shape[-2] // 2, : y.shape[-1] // 2]], 1)
        x = self.drop(torch.relu(self.third(x)))
        return self.head(F.dropout(x.mean((2, 3)), training=self.training))


class _Own(nn.Module):
    """As `_Everything` without what our table lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.third = nn.Conv2d(12, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.relu6 = nn.ReLU6(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.wide = nn.MaxPool2d((3, 2), (2, 2), dilation=(1, 1), ceil_mode=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.first(x)))
        y = F.relu(self.second(x), inplace=True)
        y += x
        pooled = F.max_pool2d(y, 2)
        z = self.relu6(y)
        x = torch.cat([pooled, self.wide(z)], 1)
        x = torch.relu(self.third(x))
        return self.head(x.mean((2, 3)))


def test_what_trips_stock_captum_is_right_here() -> None:
    module = seeded(_Own)
    captum, ours = _both(module, 3 * _images(3, size=(16, 16)), torch.tensor([0, 1, 3]), layers=["wide", "third"])
    _same(captum, ours, 1e-12)


def test_completeness_holds_where_our_table_has_no_rule() -> None:
    module = seeded(_Everything)
    found = CaptumAttributor(module, input_size=(17, 16), precision=EXACT)(
        3 * _images(3, size=(17, 16)), torch.tensor([0, 1, 3])
    )
    assert found.delta.abs().max() <= 1e-9
    assert found.deeplift.abs().sum() > 0.1


@pytest.mark.parametrize("kind", [nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus])
def test_nonlinearities_that_only_captum_knows_keep_completeness(kind: type[nn.Module]) -> None:
    module = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), kind(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(36, 2))
    )
    found = CaptumAttributor(module, input_size=(9, 9), precision=EXACT)(
        _images(2, size=(9, 9)), torch.tensor([0, 1])
    )
    assert found.delta.abs().max() <= 1e-9


def test_the_network_is_left_as_it_was() -> None:
    module = seeded(_Everything).train()
    calls: list[str] = []
    module.relu.register_forward_hook(lambda *_: calls.append("hook"))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    places = {key: value.data_ptr() for key, value in module.state_dict().items()}
    hooks = {part: dict(part._forward_hooks) for part in module.modules()}
    attributes = {part: set(vars(part)) for part in module.modules()}
    images = _images(1, size=(16, 16))
    copied = images.clone()
    CaptumAttributor(module, input_size=(16, 16), precision=SINGLE)(images, torch.tensor([0]))
    assert torch.equal(images, copied)
    assert not images.requires_grad
    assert module.training
    assert all(p.requires_grad and p.grad is None and p.dtype == EXACT for p in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert {key: value.data_ptr() for key, value in module.state_dict().items()} == places
    assert {part: dict(part._forward_hooks) for part in module.modules()} == hooks
    assert {part: set(vars(part)) for part in module.modules()} == attributes
    assert calls == []
    assert module.relu.inplace


def test_weights_are_shared_not_copied() -> None:
    module = build_random("squeezenet1_1", dtype=SINGLE)
    engine = CaptumAttributor(module, input_size=SIZE)
    mine = {value.data_ptr() for value in module.state_dict().values()}
    assert {value.data_ptr() for value in engine._module.state_dict().values()} <= mine


def test_layers_that_captum_would_silently_get_wrong_are_named() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (y * y.sigmoid()).mean((2, 3))

    class Calls(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x).mean((2, 3))

    class Choosy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    for module, match in (
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()), r"layer '1' \(GELU\) of Sequential has no DeepLIFT rule"),
        (Gated(), r"layer 'mul' \(a product of activations\) of Gated"),
        (Choosy(), "Choosy cannot be traced"),
        (Calls(lambda x: 1 / (3 + x.sigmoid())), r"'truediv' \(a division by activations"),
        (Calls(lambda x: torch.div(2, x)), r"'div' \(a division by activations"),
        (
            Calls(lambda x: torch.div(x, 2, rounding_mode="floor")),
            r"'div' \(a division by activations, or a rounded",
        ),
        (Calls(lambda x: torch.cat([x, x], 0)), r"layer 'cat.*' \(cat\) mixes the images"),
        (Calls(lambda x: x - x.mean(0, keepdim=True)), r"layer 'mean.*' \(mean\) mixes the images"),
        (Calls(lambda x: x.transpose(0, 1)), r"layer 'transpose.*' \(transpose\) mixes the images"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), r"'0' \(BatchNorm2d without running stat"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), r"layer '0' \(MaxPool2d that answers indices\)"),
    ):
        with pytest.raises(UnsupportedLayerError, match=match):
            CaptumAttributor(module, input_size=SIZE)


def test_arithmetic_with_numbers_is_transparent() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = 2 * self.conv(x.view(-1, 3, 8, 8)) / 3 - 1
            x *= 0.5
            y = x
            y /= 4
            return self.head(torch.relu(x).view(-1, 4 * 36))

    module, images = seeded(Scaled), _images(2, size=(8, 8)).contiguous(memory_format=torch.channels_last)
    found = CaptumAttributor(module, input_size=(8, 8), precision=EXACT)(images, torch.tensor([0, 1]))
    with torch.no_grad():
        torch.testing.assert_close(found.logits, module(images.contiguous()), rtol=0, atol=1e-12)
    assert found.delta.abs().max() <= 1e-12


def test_answers_are_float32_and_rows_may_be_none() -> None:
    engine = CaptumAttributor(seeded(_Own), input_size=(16, 16), precision=torch.bfloat16, layers=["third"])
    images = _images(2, size=(16, 16))
    for count in (0, 2):
        rows = torch.arange(count)
        found = engine(images, lambda _, rows=rows: (rows, rows))
        parts = (found.logits, found.deeplift, found.guided, found.layers["third"], found.delta)
        assert {part.dtype for part in parts} == {torch.float32}
        assert {len(part) for part in parts[1:]} == {count}


def test_an_inner_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(NetworkError, match="no layer 'layer9' in the network: its layers are"):
        CaptumAttributor(build_random("resnet18"), input_size=SIZE, layers=["layer9"])


def test_images_and_rows_that_do_not_fit_are_refused() -> None:
    engine = CaptumAttributor(seeded(_Own), input_size=(16, 16), precision=EXACT)
    with pytest.raises(ValueError, match=r"not \(N, 3, 16, 16\)"):
        engine(_images(1), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"must both be \(R,\)"):
        engine(_images(1, size=(16, 16)), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="classes must lie in 0…3"):
        engine(_images(1, size=(16, 16)), torch.tensor([4]))


def test_relu_then_max_pool_is_right() -> None:
    """Of [1, 0.5] with reference [0, 3]: [0, −2]. Stock captum answers [1, 0] (test_captum_parity)."""
    image, reference = [[1.0, 0.5]], [[0.0, 3.0]]
    module = first_channel(nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Flatten())
    found = CaptumAttributor(module, input_size=(1, 2), reference=as_image(reference, SINGLE))(
        as_image(image, SINGLE), torch.tensor([0])
    )
    assert found.deeplift.sum(1).flatten().tolist() == [0, -2]
    assert found.delta.item() == 0
