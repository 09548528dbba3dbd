"""Heat maps of other methods: the `grad-cam` package's, captum's stock DeepLIFT, and the paper's predecessor."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from worker.heatmap import heat
from worker.networks import Network
from worker.parameters import DEEPLIFT, GUIDED, PAPER, Parameters, Source

CAMS = ("GradCAM", "GradCAMPlusPlus", "LayerCAM")
LAST = {"vgg16": "features.29"}
"""Where CAM methods look: the last convolution's output, before pooling. Elsewhere the entry's first layer."""
PREDECESSOR = {"vgg16": "features.25"}
"""Layer l = 11: the ReLU of VGG's eleventh convolution. Elsewhere the entry's second layer."""
K_MAX = 10
"""Neurons that the predecessor maps back."""

Explain = Callable[[Tensor, Sequence[int] | None], tuple[Tensor, Sequence[Tensor]]]
"""Inputs (N, 3, H, W), and a class for each or None for the predicted ones → the classes (N,), heat maps (N, h,
w)."""


def choice(asked: Sequence[int] | None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """An engine's callback: of every image the class that is asked for, or the predicted one."""

    def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(logits), device=logits.device)
        return rows, logits.argmax(1) if asked is None else torch.tensor(asked, device=logits.device)

    return choose


def cam(network: Network, kind: str) -> Explain:
    """Grad-CAM and its kin of the `grad-cam` package, on a copy: the package hooks into the module.

    They need gradients no further down than their layer: autograd starts there, which saves most of its work.
    """
    import pytorch_grad_cam  # a development dependency
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module = plain_copy(network.module)
    layer = module.get_submodule(LAST.get(network.name, network.layers[0]))
    layer.register_forward_hook(lambda _module, _inputs, output: output.detach().requires_grad_())

    def explain(inputs: Tensor, asked: Sequence[int] | None) -> tuple[Tensor, Sequence[Tensor]]:
        wanted = None if asked is None else [ClassifierOutputTarget(target) for target in asked]
        with getattr(pytorch_grad_cam, kind)(model=module, target_layers=[layer]) as made:
            maps = torch.from_numpy(made(inputs.to(network.device), wanted))
            return made.outputs.argmax(1).cpu() if asked is None else torch.tensor(asked), [maps]

    return explain


def stock_deeplift(network: Network) -> Explain:
    """captum's DeepLift as it comes, smoothed as the paper's map is; wrong at pools that follow a ReLU directly.

    Raises now rather than on the first photo: captum refuses modules that are called twice.
    """
    from captum.attr import DeepLift

    module = plain_copy(network.module)
    stock = DeepLift(module)
    parameters = _smoothed(DEEPLIFT)

    def maps(inputs: Tensor, targets: Sequence[int]) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum announces its hooks on every call
            # One by one: stock captum uses the first image's gradient for all where it finds no difference.
            parts = [stock.attribute(one[None], target=target) for one, target in zip(inputs, targets, strict=True)]
        return torch.cat(parts).detach().sum(1).cpu()

    maps(torch.rand(1, 3, *network.preprocessing.size, device=network.device), [0])

    def explain(inputs: Tensor, asked: Sequence[int] | None) -> tuple[Tensor, Sequence[Tensor]]:
        inputs = inputs.to(network.device)
        with torch.no_grad():
            targets = module(inputs).argmax(1).tolist() if asked is None else list(asked)
        return torch.tensor(targets), [heat({DEEPLIFT: maps(inputs, targets)}, parameters)]

    return explain


def predecessor(network: Network) -> Explain:
    """Dwaraknath, Menghani and Mongia (2016); `names.NOTES` says how their text is read."""
    neurons = Neurons(network.module, PREDECESSOR.get(network.name, network.layers[1]))
    parameters = _smoothed(GUIDED)

    def explain(inputs: Tensor, asked: Sequence[int] | None) -> tuple[Tensor, Sequence[Tensor]]:
        inputs = inputs.to(network.device)
        wanted = [None] * len(inputs) if asked is None else asked
        found = [neurons(one, target) for one, target in zip(inputs, wanted, strict=True)]
        summed = torch.stack([flat for _, flat in found]).cpu()
        return torch.tensor([target for target, _ in found]), [heat({GUIDED: summed}, parameters)]

    return explain


class Neurons:
    """The best neurons of a layer, each mapped back to the pixels with guided backpropagation.

    One pass forward serves all: autograd is cut at the layer, so that the score's gradient stops there and each
    neuron's starts there. Works on a copy of the module.
    """

    def __init__(self, module: nn.Module, layer: str, count: int = K_MAX) -> None:
        self._module = plain_copy(module)
        self._count = count
        self._guided = False
        self._seen: list[Tensor] = []
        for part in self._module.modules():
            if isinstance(part, nn.ReLU | nn.ReLU6):
                part.register_full_backward_hook(self._rule)
        self._module.get_submodule(layer).register_forward_hook(self._cut)

    def __call__(self, image: Tensor, target: int | None = None) -> tuple[int, Tensor]:
        """An image (3, H, W) → its predicted class (or the one named) and the sum of its neurons' maps (H, W).

        Every map is the positive part, summed over channels, scaled to its neuron's activation × gradient.
        """
        image = image[None].clone().requires_grad_()
        self._seen.clear()
        logits = self._module(image)
        target = int(logits[0].argmax()) if target is None else target
        below, above = self._seen
        self._guided = False
        [gradient] = torch.autograd.grad(logits[0, target], above)
        scores = (above * gradient)[0].detach().flatten()
        best = scores.topk(min(self._count, len(scores)))
        summed = torch.zeros(image.shape[-2:], device=image.device)
        self._guided = True
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if score <= 0:
                break  # what speaks against the class, or says nothing, is no neuron of its
            [pixels] = torch.autograd.grad(below.flatten()[place], image, retain_graph=True)
            flat = pixels[0].clamp_min(0).sum(0)
            summed += score * flat / flat.max().clamp_min(1e-12)
        return target, summed

    def _rule(self, _module: nn.Module, inputs: Any, _outputs: Any) -> Any:
        return (inputs[0].clamp_min(0),) if self._guided else None

    def _cut(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        above = output.detach().requires_grad_()
        self._seen += [output, above]
        return above


def _smoothed(source: str) -> Parameters:
    """The paper's pipeline for one map alone."""
    return replace(PAPER, sources=(Source(source, sigma=0.04),))


def plain_copy(module: nn.Module) -> nn.Module:
    """A copy whose activations are not computed in place, so that hooks see what they should. It shares the
    weights: a copy of a network costs nothing."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for part in copied.modules():
        if hasattr(part, "inplace"):
            setattr(part, "inplace", False)  # noqa: B010 - modules declare no such attribute
    return copied.eval()
