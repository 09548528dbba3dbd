"""Every entry holds together: it builds, its layers exist, its classes and preprocessing are usable."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.models import VGG16_Weights

from worker.errors import UnknownNetworkError
from worker.networks import NETWORKS, Preprocessing, find_entry
from worker.networks.catalogue import imagenet_classes
from worker.networks.sources import Packaged, Published

WANTED = {
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "alexnet", "squeezenet1_1",
    "resnet18", "resnet34", "resnet50", "efficientnet_lite0", "xception",
}  # fmt: skip


def _shapes(module: nn.Module, size: tuple[int, int], paths: tuple[str, ...]) -> dict[str, torch.Size]:
    """Output shapes of inner layers for one image; with meta tensors, so nothing is computed."""
    found: dict[str, torch.Size] = {}
    for path in paths:
        module.get_submodule(path).register_forward_hook(
            lambda _, __, out, path=path: found.__setitem__(path, out.shape)
        )
    found[""] = module(torch.empty(1, 3, *size, device="meta")).shape
    return found


def test_the_catalogue_holds_the_networks_that_the_product_promises() -> None:
    assert set(NETWORKS) == WANTED
    assert next(iter(NETWORKS)) == "vgg16"


@pytest.mark.parametrize("name", NETWORKS)
def test_an_entry_builds_for_any_number_of_classes_and_has_its_layers(name: str) -> None:
    entry = NETWORKS[name]
    assert entry.name == name
    with torch.device("meta"):
        module = entry.build(7).eval()
    shapes = _shapes(module, entry.preprocessing.size, entry.layers)
    assert shapes.pop("") == (1, 7)
    assert len(entry.layers) == len(set(entry.layers)) >= 4
    sides = [shapes[path][-1] for path in entry.layers]
    assert all(len(shape) == 4 for shape in shapes.values())
    assert sides == sorted(sides), "the last layer comes first, so maps grow finer"
    assert sides[0] >= 6
    assert sides[-1] >= 20


@pytest.mark.parametrize("name", NETWORKS)
def test_an_entry_knows_the_classes_of_its_published_weights(name: str) -> None:
    classes = NETWORKS[name].classes()
    assert classes == imagenet_classes()
    assert len(set(classes)) == len(classes) == 1000
    assert classes == tuple(VGG16_Weights.IMAGENET1K_V1.meta["categories"])
    assert (classes[0], classes[282], classes[999]) == ("tench", "tiger cat", "toilet tissue")


@pytest.mark.parametrize("name", sorted(WANTED - {"efficientnet_lite0"}))
def test_published_files_are_named_by_their_hash(name: str) -> None:
    source = NETWORKS[name].source
    published = source if isinstance(source, Published) else source._published()  # type: ignore[attr-defined]
    assert published.url.startswith("https://")
    assert published.filename.endswith(f"-{published.sha256}.pth")
    assert len(published.sha256) >= 8


def test_efficientnet_comes_with_a_package() -> None:
    assert isinstance(NETWORKS["efficientnet_lite0"].source, Packaged)


def test_a_file_name_without_a_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no hash"):
        Published.from_url("https://example.org/weights.pth")


def test_preprocessing_is_undone_exactly() -> None:
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    seen = preprocessing.normalise(images)
    torch.testing.assert_close(seen[:, 2], (images[:, 2] - 0.3) / 2)
    torch.testing.assert_close(preprocessing.denormalise(seen), images)


def test_efficientnet_sees_the_bytes_as_its_authors_did() -> None:
    preprocessing = NETWORKS["efficientnet_lite0"].preprocessing
    bytes_ = torch.tensor([0.0, 127.0, 255.0]).expand(3, 1, 3)
    torch.testing.assert_close(preprocessing.normalise(bytes_ / 255), (bytes_ - 127) / 128)


def test_an_unknown_name_gets_the_names_that_there_are() -> None:
    with pytest.raises(
        UnknownNetworkError, match=r"did you mean efficientnet_lite0\?\).*there are vgg16, efficientn"
    ):
        find_entry("effcientnet-lite0")


def test_what_is_not_of_torchvision_does_without_it() -> None:
    """It, and the compiler that it brings, take as long to import as torch, at every start of a worker."""
    code = (
        "import sys; from worker.localizer import Localizer; from worker.networks import load_network\n"
        "Localizer(load_network('efficientnet_lite0'))\n"
        "print([name for name in ('torchvision', 'torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
