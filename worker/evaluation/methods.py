"""Other ways to draw a box, to stand beside ours on the same photos.

All but the centred box make a heat map that is thresholded; where the publication leaves the threshold open or
tuned it to its own data, every method gets the one that suits the photos best in hindsight (MaxBoxAcc).
"""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worker.engines import Engine, make_attributor
from worker.errors import BoxliftError
from worker.evaluation.metrics import Found, Outcome
from worker.heatmap import heat
from worker.images import Photo, to_tensor
from worker.localizer import Allowed, as_box, named_maps
from worker.networks import Network
from worker.parameters import DEEPLIFT, GUIDED, PAPER, Parameters, Source
from worker.probes import union_boxes

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
LAST = {"vgg16": "features.29"}
"""Where CAM methods look: the last convolution's output, before pooling. Elsewhere the entry's first layer."""
PREDECESSOR = {"vgg16": "features.25"}
"""Layer l = 11: the ReLU of VGG's eleventh convolution. Elsewhere the entry's second layer."""
K_MAX = 10

Heats = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Inputs (N, 3, H, W) → the predicted classes (N,) and a heat map each (N, h, w)."""


@dataclass(frozen=True)
class Centred:
    """The middle of the image, without looking."""

    side: float = 0.8

    @property
    def name(self) -> str:
        return f"centred {self.side:.0%}"

    def __call__(self, photos: Sequence[Photo], classes: Sequence[Allowed]) -> list[tuple[Found, ...]]:
        low, high = (1 - self.side) / 2, (1 + self.side) / 2
        return [(Found((low, low, high, high)),)] * len(photos)


@dataclass(frozen=True)
class Thresholded:
    """A heat map's box at each of `THRESHOLDS`; `settle` keeps one."""

    name: str
    network: Network
    heats: Heats

    def __call__(self, photos: Sequence[Photo], classes: Sequence[Allowed]) -> list[tuple[Found, ...]]:
        """Boxes at all thresholds, in their order; `classes` are ignored, the predicted class is explained."""
        inputs = torch.stack([to_tensor(photo, self.network.preprocessing) for photo in photos])
        targets, maps = self.heats(inputs)
        values = maps.detach().float().clamp_min(0).cpu().numpy()
        drawn = [union_boxes(values, threshold) for threshold in THRESHOLDS]
        return [
            tuple(
                Found(as_box(boxes[row]), class_index=target, label=self.network.classes[target]) for boxes in drawn
            )
            for row, target in enumerate(targets.tolist())
        ]


def settle(outcomes: Sequence[Outcome]) -> tuple[float, tuple[Outcome, ...]]:
    """The threshold with most right boxes over all photos, in hindsight, and every photo's box at that one."""
    kept = [
        tuple(replace(one, found=one.found[place : place + 1]) for one in outcomes)
        for place in range(len(THRESHOLDS))
    ]
    worth = [float(np.mean([one.best_iou >= 0.5 for one in some] or [False])) for some in kept]
    best = int(np.argmax(worth))
    return THRESHOLDS[best], kept[best]


OTHERS = (
    "centred 80%",
    "paper",
    "paper, no mask",
    "paper, less blur",
    "DeepLIFT alone",
    "guided alone",
    "GradCAM",
    "GradCAMPlusPlus",
    "LayerCAM",
    "captum DeepLIFT, stock",
    "predecessor",
)
"""Names of all other methods. The last one takes longer than the rest together: ten passes back for each photo."""


def others(network: Network, without: Collection[str] = ()) -> Iterator[Centred | Thresholded]:
    """Every method that can run with this network, made when its turn comes: none holds memory for the others.

    `without` names those of `OTHERS` that nobody wants. What cannot run is left out with a warning.
    """
    simple: list[Centred | Thresholded] = [Centred(), *_papers(network)]
    yield from (method for method in simple if method.name not in without)
    for name, make in (*_cams(), ("captum DeepLIFT, stock", _captum), ("predecessor", _predecessor)):
        if name in without:
            continue
        try:
            method = Thresholded(name, network, make(network))
        except (BoxliftError, ImportError, AssertionError, RuntimeError) as error:
            warnings.warn(f"{name} is left out: {error}", stacklevel=2)
        else:
            yield method


def _papers(network: Network) -> Iterator[Thresholded]:
    """The paper's pipeline, and what its figure's panels are made of; all with the same engine."""
    attribute = make_attributor(network)
    one = {name: replace(PAPER, sources=(Source(name, sigma=0.04),)) for name in (DEEPLIFT, GUIDED)}
    sharp = (Source(DEEPLIFT, sigma=0.02), Source(GUIDED, sigma=0.02))
    for name, parameters in (
        ("paper", PAPER),
        ("paper, no mask", replace(PAPER, border_kind="none")),
        ("paper, less blur", replace(PAPER, sources=sharp)),
        ("DeepLIFT alone", one[DEEPLIFT]),
        ("guided alone", one[GUIDED]),
    ):
        yield Thresholded(name, network, functools.partial(_pixels, attribute, parameters))


def _pixels(attribute: Engine, parameters: Parameters, inputs: Tensor) -> tuple[Tensor, Tensor]:
    found = attribute(inputs, lambda logits: (torch.arange(len(logits)), logits.argmax(1)))
    return found.targets, heat(named_maps(found), parameters)


def _cams() -> Iterator[tuple[str, Callable[[Network], Heats]]]:
    for name in ("GradCAM", "GradCAMPlusPlus", "LayerCAM"):
        yield name, functools.partial(_cam, kind=name)


def _cam(network: Network, kind: str) -> Heats:
    """Grad-CAM and its kin of the `grad-cam` package, on a copy: the package hooks into the module.

    They need gradients no further down than their layer: autograd starts there, which saves most of its work.
    """
    import pytorch_grad_cam  # a development dependency

    module = _plain_copy(network.module)
    layer = module.get_submodule(LAST.get(network.name, network.layers[0]))
    layer.register_forward_hook(lambda _module, _inputs, output: output.detach().requires_grad_())

    def heats(inputs: Tensor) -> tuple[Tensor, Tensor]:
        with getattr(pytorch_grad_cam, kind)(model=module, target_layers=[layer]) as cam:
            maps = torch.from_numpy(cam(inputs.to(network.device), None))
            return cam.outputs.argmax(1).cpu(), maps

    return heats


def _captum(network: Network) -> Heats:
    """captum's DeepLift as it comes, smoothed as the paper's map is; wrong at pools that follow a ReLU directly."""
    from captum.attr import DeepLift

    module = _plain_copy(network.module)
    stock = DeepLift(module)
    parameters = replace(PAPER, sources=(Source(DEEPLIFT, sigma=0.04),))
    _explain_one(stock, module, network)

    def heats(inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            targets = module(inputs.to(network.device)).argmax(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # One by one: stock captum uses the first image's gradient for all where it finds no difference.
            parts = [
                stock.attribute(one[None].to(network.device), target=int(target))
                for one, target in zip(inputs, targets, strict=True)
            ]
        return targets.cpu(), heat({DEEPLIFT: torch.cat(parts).detach().sum(1).cpu()}, parameters)

    return heats


def _explain_one(stock: Any, module: nn.Module, network: Network) -> None:
    """Fail now rather than on the first photo: captum refuses modules that are called twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock.attribute(torch.rand(1, 3, *network.preprocessing.size, device=network.device), target=0)


def _predecessor(network: Network) -> Heats:
    """Dwaraknath, Menghani and Mongia (2016), as we read them.

    Every neuron of layer l is scored by activation × gradient of the predicted logit; the `K_MAX` best are kept.
    Each is mapped back with guided backpropagation to the pixels of its receptive field, its own sub-image. The
    text leaves the "DAM heuristic" open: here the maps, scaled to their neurons' scores, are added and smoothed.
    """
    from captum.attr import NeuronGuidedBackprop

    module = _plain_copy(network.module)
    layer = module.get_submodule(PREDECESSOR.get(network.name, network.layers[1]))
    neurons = NeuronGuidedBackprop(module, layer)
    parameters = replace(PAPER, sources=(Source(GUIDED, sigma=0.04),))

    def heats(inputs: Tensor) -> tuple[Tensor, Tensor]:
        targets, summed = [], []
        for one in inputs.to(network.device):
            target, scores = _neuron_scores(module, layer, one[None])
            best = scores.flatten().topk(K_MAX)
            places = torch.unravel_index(best.indices, scores.shape)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                maps = neurons.attribute(
                    one.expand(K_MAX, -1, -1, -1).contiguous(),
                    lambda out, places=places: out[(torch.arange(K_MAX), *places)],
                )
            flat = maps.detach().clamp_min(0).sum(1)
            flat = flat / flat.amax((1, 2), keepdim=True).clamp_min(1e-12)
            targets.append(target)
            summed.append((flat * best.values.clamp_min(0)[:, None, None]).sum(0))
        return torch.tensor(targets), heat({GUIDED: torch.stack(summed).cpu()}, parameters)

    return heats


def _neuron_scores(module: nn.Module, layer: nn.Module, image: Tensor) -> tuple[int, Tensor]:
    """The predicted class, and activation × gradient of every neuron of a layer (C, h, w)."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        logits = module(image.clone().requires_grad_())
    finally:
        hook.remove()
    target = int(logits[0].argmax())
    [gradient] = torch.autograd.grad(logits[0, target], seen[0])
    return target, (seen[0] * gradient)[0].detach()


def _plain_copy(module: nn.Module) -> nn.Module:
    """A copy whose activations are not computed in place, so that hooks see what they should. It shares the
    weights: a copy of a network costs nothing."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for part in copied.modules():
        if hasattr(part, "inplace"):
            setattr(part, "inplace", False)  # noqa: B010 - modules declare no such attribute
    return copied.eval()
