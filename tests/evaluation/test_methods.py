"""Other methods on inputs small enough to check by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import NeuronGuidedBackprop
from torch import nn

from tests.conftest import ROOT
from worker.errors import NetworkError
from worker.evaluation import explainers, methods
from worker.evaluation.datasets import Object, Sample
from worker.evaluation.explainers import Neurons
from worker.evaluation.methods import PIXELS, THRESHOLDS, Centred, Thresholded, others, settle
from worker.evaluation.metrics import Found, Outcome
from worker.evaluation.names import NOTES, OTHERS
from worker.evaluation.run import Run, run
from worker.networks import Network, load_network

PHOTOS = sorted((ROOT / "backend" / "demo" / "photos").glob("*.jpg"))
LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("efficientnet_lite0")


def tiny(*, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 12 * 12, 5),
    ).eval()  # fmt: skip


def test_the_threshold_is_the_best_one_in_hindsight() -> None:
    """Right at the third threshold on two photos, at the first on one; the class's own boxes go with it."""
    sample = Sample(Path("a.jpg"), (Object("cat", LEFT, 1),))

    def drawn(*right: int) -> tuple[Found, ...]:
        return tuple(Found(LEFT if k in right else RIGHT, None, k) for k in range(len(THRESHOLDS)))

    outcomes = [Outcome(sample, drawn(0)), Outcome(sample, drawn(2), drawn(5)), Outcome(sample, drawn(2))]
    threshold, kept = settle(outcomes)
    assert threshold == THRESHOLDS[2]
    assert [one.best_iou for one in kept] == [0, 1, 1]
    assert kept[1].known == (Found(RIGHT, None, 2),)


def test_methods_that_share_a_pass_come_apart_again() -> None:
    sample = Sample(Path("a.jpg"), (Object("cat", LEFT, 1),))
    found = tuple(Found(box) for box in (RIGHT, LEFT) for _ in THRESHOLDS)
    both = Thresholded(("paper", "guided alone"), None, None)  # type: ignore[arg-type]
    first, second = both.runs(Run(both.name, (Outcome(sample, found),), 3.0))
    assert [(one.method, one.outcomes[0].best_iou, one.seconds, one.note) for one in (first, second)] == [
        ("paper", 0, 3.0, NOTES["paper"]),
        ("guided alone", 1, 3.0, NOTES["guided alone"]),
    ]


def test_neurons_are_mapped_back_as_captum_does() -> None:
    """The best neurons of a layer by activation × gradient, guided down to the pixels, scaled and added."""
    module, image = tiny(), torch.rand(3, 12, 12) - 0.5
    target, got = Neurons(module, "3", count=3)(image)

    plain = explainers.plain_copy(module)
    middle = plain[:4](image[None]).detach().requires_grad_()
    logits = plain[4:](middle)
    assert target == int(logits.argmax())
    [gradient] = torch.autograd.grad(logits[0, target], middle)
    best = (middle * gradient)[0].detach().flatten().topk(3)
    want = torch.zeros(12, 12)
    guided = NeuronGuidedBackprop(plain, plain[3])
    for score, place in zip(best.values, best.indices, strict=True):
        neuron = tuple(int(one) for one in torch.unravel_index(place, middle.shape[1:]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = guided.attribute(image[None].clone(), neuron).detach()[0].clamp_min(0).sum(0)
        want += score * one / one.max()
    torch.testing.assert_close(got, want)
    assert got.max() > 0


def test_neurons_of_a_class_that_is_named() -> None:
    neurons, image = Neurons(tiny(), "3", count=2), torch.rand(3, 12, 12)
    predicted, one = neurons(image)
    other = (predicted + 1) % 5
    target, two = neurons(image, other)
    assert target == other
    assert not torch.allclose(one, two)


def test_a_sub_image_is_the_neurons_receptive_field() -> None:
    """Two 3 × 3 convolutions see 5 × 5 pixels: outside of those of the one best neuron there is nothing."""
    _, got = Neurons(tiny(), "3", count=1)(torch.rand(3, 12, 12))
    rows, columns = torch.nonzero(got, as_tuple=True)
    assert len(rows)
    assert int(rows.max() - rows.min()) < 5
    assert int(columns.max() - columns.min()) < 5


@pytest.mark.parametrize("kind", explainers.CAMS)
def test_cams_explain_the_class_that_is_asked_for(network: Network, kind: str) -> None:
    explain = explainers.cam(network, kind)
    inputs = torch.rand(2, 3, *network.preprocessing.size)
    predicted, [maps] = explain(inputs, None)
    named, [others_] = explain(inputs, [1, 2])
    assert predicted.tolist() == network.module(inputs).argmax(1).tolist()
    assert named.tolist() == [1, 2]
    assert maps.shape == others_.shape == (2, *network.preprocessing.size)
    assert not torch.allclose(maps, others_)


def test_grad_cam_is_the_gradients_mean_times_the_activation(network: Network) -> None:
    inputs = torch.rand(1, 3, *network.preprocessing.size)
    _, [got] = explainers.cam(network, "GradCAM")(inputs, [7])
    module = explainers.plain_copy(network.module)
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    module.get_submodule(network.layers[0]).register_forward_hook(keep)
    [gradient] = torch.autograd.grad(module(inputs)[0, 7], seen[0])
    want = (gradient.mean((2, 3), keepdim=True) * seen[0]).sum(1).clamp_min(0)[0].detach()
    side = want.shape[0]
    step = network.preprocessing.size[0] // side
    middles = got[0, step // 2 :: step, step // 2 :: step]  # of an upsampled map, near the cells themselves
    assert np.corrcoef(middles.flatten().numpy(), want.flatten().numpy())[0, 1] > 0.97


def test_the_papers_settings_differ_in_what_they_say() -> None:
    bare, paper, sharp = (PIXELS[name] for name in ("paper, no mask", "paper", "paper, less blur"))
    assert (bare.border_kind, paper.border_kind, sharp.border_kind) == ("none", "hard", "hard")
    assert [one.sigma for one in paper.sources] == [0.04, 0.04] == [one.sigma for one in bare.sources]
    assert [one.sigma for one in sharp.sources] == [0.02, 0.02]
    assert paper.border == 0.1
    assert len({one.threshold for one in PIXELS.values()}) == 1
    for name in ("DeepLIFT alone", "guided alone"):
        assert len(PIXELS[name].sources) == 1


def test_all_methods_by_their_names(network: Network) -> None:
    """On one photo, for its predicted class and for one that is named; each has its note and threshold."""
    sample = Sample(PHOTOS[0], (Object("cat", (0.2, 0.2, 0.8, 0.8), 1),))
    left_out: dict[str, str] = {}
    done = []
    for method in others(network, ["predecessor"], left_out=left_out):
        done += method.runs(run(method, [sample]))
    assert left_out == {}
    assert [one.method for one in done] == [name for name in OTHERS if name != "predecessor"]
    for one in done:
        [outcome] = one.outcomes
        assert outcome.known is not None
        assert len(outcome.found) == len(outcome.known) == 1
        assert one.note == NOTES[one.method]
        if one.method.startswith("centred"):
            assert outcome.found[0].class_index is one.threshold is None
        else:
            assert outcome.known[0].class_index == 1
            assert one.threshold in THRESHOLDS
        assert outcome.found[0].score is None


def test_what_cannot_run_is_left_out_with_its_reason(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_network: Network) -> None:
        raise NetworkError("a layer that it does not know\nand more")

    monkeypatch.setattr(methods.explainers, "predecessor", refuse)
    left_out: dict[str, str] = {}
    got = list(others(network, [name for name in OTHERS if name not in ("predecessor", "centred 80%")],
                      left_out=left_out))  # fmt: skip
    assert got == [Centred(0.8)]
    assert left_out == {"predecessor": "NetworkError: a layer that it does not know"}


def test_classes_of_all_photos_or_of_none(network: Network) -> None:
    both = Thresholded(("GradCAM",), network, None)  # type: ignore[arg-type]
    for classes in ([[1], None], [[1, 2], [3]]):
        with pytest.raises(ValueError, match="every photo's class"):
            methods._targets(classes)
    assert methods._targets([None, None]) is None
    assert methods._targets([[4], [2]]) == [4, 2]
    assert both.name == "GradCAM"
