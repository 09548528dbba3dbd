"""A network with further classes: the same everywhere else, complete, sharing layers with the one it extends."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from worker.attribution import Attributor
from worker.contract import Head
from worker.errors import NetworkError
from worker.heads import extended, features
from worker.heads.outputs import encode, last_linear
from worker.images import to_tensor
from worker.localizer import Localizer
from worker.networks import NETWORKS, Network
from worker.parameters import GUIDED, Parameters, Source

Networks = Callable[..., Network]


def head_for(network: Network, *labels: str) -> Head:
    inputs = network.module.get_submodule(last_linear(network)).in_features
    assert isinstance(inputs, int)
    rng = np.random.default_rng(1)
    weights = rng.normal(0, inputs**-0.5, (len(labels), inputs))
    return encode(labels, weights, rng.normal(0, 0.1, len(labels)))


def photos(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(count)]


def numbers(network: Network) -> dict[str, tuple[int, int]]:
    return {name: (part.data_ptr(), part._version) for name, part in network.module.state_dict().items()}


def batch(network: Network, pictures: list[Image.Image]) -> Tensor:
    return torch.stack([to_tensor(picture, network.preprocessing) for picture in pictures])


SUPPORTED = [name for name in NETWORKS if not name.startswith("squeezenet")]


@pytest.mark.parametrize("name", SUPPORTED)
def test_features_are_what_the_last_layer_sees_and_further_classes_follow_the_networks_own(
    name: str, network_of: Networks
) -> None:
    network = network_of(name, size={"xception": 71}.get(name, 64))
    before = numbers(network)
    head = head_for(network, "Zorb", "Quux")
    longer = extended(network, head)
    pictures = photos(3)
    seen = features(network, pictures)
    weights = np.frombuffer(base64.b64decode(head.weights), dtype="<f4").reshape(2, -1)
    with torch.no_grad():
        logits, more = (one.module(batch(network, pictures)) for one in (network, longer))
    last = network.module.get_submodule(last_linear(network))
    assert isinstance(last, torch.nn.Linear)
    near = 1e-4 * float(logits.abs().max())  # deep random networks have large sums, and sizes round differently
    torch.testing.assert_close(last(seen), logits, rtol=0, atol=near)
    torch.testing.assert_close(more[:, : len(network.classes)], logits, rtol=0, atol=near)
    own = seen @ torch.tensor(weights).T + torch.tensor(head.bias) + logits.amax(1, keepdim=True)
    torch.testing.assert_close(more[:, len(network.classes) :], own, rtol=0, atol=near)
    assert longer.classes == (*network.classes, "Zorb", "Quux")
    assert (network.own, longer.own) == (0, 2)
    assert numbers(network) == before, "the network that is extended changed"
    after = numbers(longer)
    own_names = {f"{last_linear(network)}.weight", f"{last_linear(network)}.bias"}
    assert {key for key in before if before[key] != after.get(key)} == own_names, "layers are not shared"


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vgg11", "resnet18"])
def test_contributions_to_further_classes_sum_to_the_change_of_their_logits(
    name: str, network_of: Networks
) -> None:
    network = network_of(name, dtype=torch.float64)
    longer = extended(network, head_for(network, "Zorb", "Quux"))
    first = len(network.classes)
    engine = Attributor(
        longer.module, input_size=network.preprocessing.size, precision=torch.float64, layers=network.layers
    )
    images = batch(network, photos(2)).double()
    rows, targets = torch.tensor([0, 0, 1, 1]), torch.tensor([first, first + 1, first, 2])
    found = engine(images, lambda _: (rows, targets))
    with torch.no_grad():
        change = longer.module(images)[rows, targets] - longer.module(torch.zeros_like(images[:1]))[0, targets]
    assert change.abs().min() > 1e-3, "nothing is attributed, so nothing is shown"
    assert found.delta.abs().max() <= 1e-9
    torch.testing.assert_close(found.deeplift.sum((1, 2, 3)), change, rtol=0, atol=1e-9)
    for layer in network.layers:
        torch.testing.assert_close(found.layers[layer].sum((1, 2)), change, rtol=0, atol=1e-9, msg=layer)


def test_boxes_of_further_classes_carry_their_labels(network_of: Networks) -> None:
    network = network_of()
    longer = extended(network, head_for(network, "Zorb", "Quux"))
    first = len(network.classes)
    # Boxes lean by their scores, and scores know of all classes.
    upright = dataclasses.replace(Localizer(network).parameters, lean=0.0)
    plain, more = Localizer(network, upright), Localizer(longer, upright)
    assert plain.version != more.version
    assert more.model.own == 2
    assert more.model.classes[first:] == ("Zorb", "Quux")
    for found in more.localize(photos(2), classes=[first, first + 1]):
        assert [(one.class_index, one.label) for one in found] in ([(first, "Zorb")], [(first + 1, "Quux")])
    own = range(first)
    one, other = plain.localize(photos(2)), more.localize(photos(2), classes=list(own))
    assert [[d.class_index for d in some] for some in one] == [[d.class_index for d in some] for some in other]
    np.testing.assert_allclose([d.box for (d,) in one], [d.box for (d,) in other], atol=1e-3)


def test_other_weights_make_another_version(network_of: Networks) -> None:
    network = network_of()
    head = head_for(network, "Zorb", "Quux")
    moved = dataclasses.replace(head, bias=(head.bias[0] + 0.5, head.bias[1]))
    renamed = dataclasses.replace(head, labels=("Zorb", "Quuz"))
    digests = {extended(network, one).weights_digest for one in (head, moved, renamed)} | {network.weights_digest}
    assert len(digests) == 4
    assert extended(network, head).weights_digest == extended(network, head).weights_digest


def test_a_head_survives_json(network_of: Networks) -> None:
    head = head_for(network_of(), "Zorb", "猫")
    assert Head.from_dict(head.to_dict()) == head


def test_a_network_that_does_not_end_in_a_linear_layer_is_refused(network_of: Networks) -> None:
    network = network_of("squeezenet1_1")
    head = Head(("Zorb",), "", (0.0,))
    with pytest.raises(NetworkError, match="squeezenet1_1 has no linear layer at its end"):
        extended(network, head)
    with pytest.raises(NetworkError, match="use another network"):
        features(network, photos(1))


def test_heads_that_do_not_fit_are_refused(network_of: Networks) -> None:
    network, other = network_of(), network_of("vgg11")
    good = head_for(network, "Zorb", "Quux")
    undefined = encode(("Zorb",), np.full((1, 1280), np.nan), np.zeros(1))
    bad = [
        head_for(other, "Zorb", "Quux"),
        dataclasses.replace(good, bias=(0.0,)),
        dataclasses.replace(good, weights="!"),
        dataclasses.replace(good, labels=("Zorb", "Zorb")),
        Head((), "", ()),
        undefined,
    ]
    for head in bad:
        with pytest.raises(NetworkError, match="tune the project again"):
            extended(network, head)
    with pytest.raises(NetworkError, match="already"):
        extended(extended(network, good), good)


def test_no_pictures_have_no_features(network_of: Networks) -> None:
    assert features(network_of(), []).shape == (0, 1280)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("efficientnet_lite0", torch.float32),
        ("efficientnet_lite0", torch.bfloat16),
        ("vgg11", torch.float32),
        ("alexnet", torch.bfloat16),  # vgg11 takes minutes where the processor is slow at it
    ],
)
def test_localizers_share_prepared_layers_and_draw_the_same_boxes(
    name: str, precision: torch.dtype, network_of: Networks
) -> None:
    network = network_of(name)
    parameters = Parameters(sources=(Source(network.layers[0]), Source(GUIDED)))
    other = Parameters(sources=(Source(network.layers[2]), Source(GUIDED)), reference="black")
    longer = extended(network, head_for(network, "Zorb", "Quux"))
    base = Localizer(network, parameters, precision=precision)
    for settings in (parameters, other):
        sharing = Localizer(longer, settings, precision=precision, like=base)
        alone = Localizer(longer, settings, precision=precision)
        assert sharing.version == alone.version
        pictures = photos(3)
        assert sharing.localize(pictures) == alone.localize(pictures)
        kept, own = held(base), held(sharing)
        last = sum(part.numel() for part in longer.module.get_submodule(last_linear(network)).parameters())
        extra = sum(size for place, size in own.items() if place not in kept)
        unfolded = 0.05 * sum(kept.values()) if settings is other else 0
        assert extra <= 2 * last + unfolded, "layers are prepared once more"
    assert base.localize(photos(1)) == Localizer(network, parameters, precision=precision).localize(photos(1))


def test_networks_with_other_weights_share_nothing_that_differs(network_of: Networks) -> None:
    network, changed = network_of("resnet18"), network_of("resnet18")
    conv = changed.module.get_submodule("layer3.0.conv1")
    assert isinstance(conv, torch.nn.Conv2d)
    with torch.no_grad():
        conv.weight.mul_(-0.5)
    base = Localizer(network, precision=torch.float32)
    sharing = Localizer(changed, precision=torch.float32, like=base)
    alone = Localizer(changed, precision=torch.float32)
    assert sharing.localize(photos(3)) == alone.localize(photos(3))
    assert sharing.localize(photos(3)) != base.localize(photos(3))
    assert held(sharing).keys() - held(base).keys(), "the changed layer must be its own"
    assert held(sharing).keys() & held(base).keys(), "the others are shared"


def held(localizer: Localizer) -> dict[int, int]:
    """Place → numbers of every tensor that the localizer's attributor prepared."""
    engine = localizer._attribute
    assert isinstance(engine, Attributor)
    found: dict[int, int] = {}
    for step in engine._plan.program.steps:
        for item in dataclasses.fields(step.layer):  # type: ignore[arg-type]
            value = getattr(step.layer, item.name)
            if isinstance(value, Tensor) and value.numel():
                found[id(value)] = value.numel()
    return found
