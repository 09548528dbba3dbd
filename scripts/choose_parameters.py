"""Choose a network's parameters on photos with known boxes, and say by cross-validation what they are worth.

    python scripts/choose_parameters.py efficientnet_lite0 ../shared/data/ilsvrc --maps /tmp/maps
    python scripts/choose_parameters.py vgg16 ../shared/data/ilsvrc --maps /tmp/maps --weights vgg16.safetensors

The maps of every photo are computed once and kept in the folder of `--maps`; everything after that takes a minute.
Weights of the box regression start from ridge regression and are then moved by gradient descent on what counts:
IoU, IoU ≥ 0.5 and the centre within the object. Photos are mirrored, so that left and right come out alike. Figures
printed as "held out" are of photos that had no part in choosing the weights (10 folds, twice); the weights that are
written are then chosen on all photos. With --write they become the network's defaults.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from worker.boxes import iou
from worker.engines import make_attributor
from worker.evaluation.datasets import Sample, read_dataset
from worker.evaluation.metrics import auroc
from worker.heatmap import border_mask, combine, prepare
from worker.images import decode, to_tensor
from worker.localizer import named_maps
from worker.networks import Network, load_network
from worker.parameters import GUIDED, Calibration, Parameters, Regression, Source
from worker.probes import probe_boxes
from worker.regression import certainty, chance, regress, signs, terms

SOURCES = {
    "efficientnet_lite0": ("blocks.14", "blocks.10", "blocks.4", "blocks.2", GUIDED),
    "vgg16": ("features.30", "features.22", "features.9", GUIDED),
}
"""Inner layers of falling depth and guided backpropagation: each alone is worse, more of them are no better."""
OUT = Path(__file__).parents[1] / "worker" / "networks" / "parameters"

# How the weights are chosen: themselves chosen once, on efficientnet_lite0, and the same for every network.
RIDGE = 1000.0
DECAY = 0.3
STEPS, RATE = 100, 0.01
CENTRE_SHARE, CENTRE_WIDTH = 3.0, 0.05
SCORE_DECAY = 0.5
RIGHT_SHARE, RIGHT_WIDTH = 0.5, 0.1


@dataclass(frozen=True)
class Study:
    """Everything about the photos that the search needs: N photos, predicted class."""

    truths: list[np.ndarray]
    """(M, 4) each."""
    probes: np.ndarray
    heat: np.ndarray
    sure: np.ndarray
    own: np.ndarray
    """Probability of the predicted class, to compare the score with."""


def main_parameters(network: str, layers: tuple[str, ...]) -> Parameters:
    names = SOURCES.get(network) or (*layers[:3], GUIDED)
    sources = tuple(
        Source(name, sigma=0.04, part="absolute") if name == GUIDED else Source(name, sigma=0.03) for name in names
    )
    return Parameters(sources=sources, threshold=0.15)


def compute_maps(network: Network, parameters: Parameters, samples: list[Sample], file: Path) -> None:
    """Logits of every photo and the maps of its predicted class, to an npz file."""
    attribute = make_attributor(network, layers=parameters.layers)
    kept: dict[str, list[np.ndarray]] = {"logits": []}
    with click.progressbar(range(0, len(samples), 8), label="maps", file=click.get_text_stream("stderr")) as starts:
        for start in starts:
            photos = [decode(sample.path.read_bytes()) for sample in samples[start : start + 8]]
            inputs = torch.stack([to_tensor(photo, network.preprocessing) for photo in photos])
            found = attribute(inputs, lambda logits: (torch.arange(len(logits)), logits.argmax(1)))
            kept["logits"].append(found.logits.float().cpu().numpy())
            for source in parameters.sources:
                values = named_maps(found)[source.name]
                values = values / values.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)
                kept.setdefault(f"map {source.name}", []).append(values.half().cpu().numpy())
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{name: np.concatenate(parts) for name, parts in kept.items()})


def load_study(file: Path, parameters: Parameters, samples: list[Sample]) -> Study:
    with np.load(file) as stored:
        maps = {s.name: torch.from_numpy(stored[f"map {s.name}"].astype(np.float32)) for s in parameters.sources}
        logits = torch.from_numpy(stored["logits"]).double()
    sources = prepare(maps, parameters)
    heat = combine(sources, parameters).numpy()
    mask = border_mask(parameters.grid, parameters.border, parameters.border_kind).numpy()
    best = logits.argmax(1).tolist()
    return Study(
        truths=[np.array([item.box for item in sample.objects]) for sample in samples],
        probes=probe_boxes(heat, [source.numpy() * mask for source in sources]),
        heat=heat,
        sure=certainty(logits.numpy(), range(len(best)), best),
        own=logits.softmax(1).amax(1).numpy(),
    )


def targets(study: Study) -> np.ndarray:
    """One true box per photo, for the start: the one that the probes agree on most, else the largest."""
    chosen = []
    for truths, probes in zip(study.truths, study.probes, strict=True):
        shared = iou(probes, truths).mean(0)
        sizes = (truths[:, 2:] - truths[:, :2]).prod(1)
        chosen.append(truths[int(shared.argmax() if shared.max() > 0.05 else sizes.argmax())])
    return np.array(chosen)


def padded(truths: list[np.ndarray]) -> Tensor:
    most = max(len(one) for one in truths)
    return torch.tensor(np.array([np.concatenate([t, np.repeat(t[:1], most - len(t), 0)]) for t in truths]))


def choose_regression(study: Study, photos: np.ndarray, goal: np.ndarray) -> Regression:
    """The weights that suit these photos best."""
    x, y, width, height = (torch.tensor(part) for part in terms(study.probes[photos]))
    unit = torch.cat([x, y]).std(0) + 1e-3
    mean, spread = torch.cat([width, height]).mean(0), torch.cat([width, height]).std(0) + 1e-3
    x, y, width, height = x / unit, y / unit, (width - mean) / spread, (height - mean) / spread
    wide, tall = torch.cat([width, height], 1), torch.cat([height, width], 1)
    aim = torch.tensor(goal[photos])
    to_x, to_y = (aim[:, 0] + aim[:, 2]) / 2 - 0.5, (aim[:, 1] + aim[:, 3]) / 2 - 0.5
    to_w, to_h = ((aim[:, 2 + k] - aim[:, k]).clamp_min(0.02).log() for k in (0, 1))
    centre = ridge(torch.cat([x, y]), torch.cat([to_x, to_y]))
    sides = ridge(torch.cat([wide, tall]), torch.cat([to_w - to_w.mean(), to_h - to_h.mean()]))
    shift = torch.stack([(to_y - y @ centre).mean(), (to_w - wide @ sides).mean(), (to_h - tall @ sides).mean()])
    learned = [centre.requires_grad_(), sides.requires_grad_(), shift.requires_grad_()]
    truths = padded([study.truths[index] for index in photos])
    mirrored = torch.stack([1 - truths[..., 2], truths[..., 1], 1 - truths[..., 0], truths[..., 3]], -1)

    def draw(across: Tensor) -> Tensor:
        cx, cy = 0.5 + across @ centre, 0.5 + y @ centre + shift[0]
        half_w, half_h = (wide @ sides + shift[1]).exp() / 2, (tall @ sides + shift[2]).exp() / 2
        return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], 1).clamp(0, 1)

    steps = torch.optim.Adam(learned, lr=RATE)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(steps, STEPS)
    for _ in range(STEPS):
        steps.zero_grad()
        worth = (value(draw(x), truths) + value(draw(-x), mirrored)) / 2
        loss = -worth + DECAY * (centre.square().sum() + sides.square().sum())
        loss.backward()
        steps.step()
        slower.step()
    own, other = (part.detach() / spread for part in sides.chunk(2))
    constant = float((mean * (own + other)).sum())
    down, add_w, add_h = shift.tolist()
    return Regression(
        centre=rounded(centre.detach() / unit),
        own_side=rounded(own),
        other_side=rounded(other),
        down=round(down, 5),
        width=round(add_w - constant, 5),
        height=round(add_h - constant, 5),
    )


def ridge(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve(a.T @ a + RIDGE * torch.eye(a.shape[1], dtype=a.dtype), a.T @ b)


def rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)


def value(boxes: Tensor, truths: Tensor) -> Tensor:
    """What boxes (N, 4) are worth against the best of each photo's true ones (N, M, 4), smooth enough to climb."""
    low, high = (
        torch.maximum(boxes[:, None, :2], truths[..., :2]),
        torch.minimum(boxes[:, None, 2:], truths[..., 2:]),
    )
    shared = (high - low).clamp_min(0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-4).prod(-1)[:, None] + (
        truths[..., 2:] - truths[..., :2]
    ).prod(-1)
    fit = (shared / (areas - shared)).amax(1)
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    inside = torch.minimum(centre - truths[..., :2], truths[..., 2:] - centre).amin(-1).amax(1)
    right = torch.sigmoid((fit - 0.5) / RIGHT_WIDTH)
    return (fit + RIGHT_SHARE * right + CENTRE_SHARE * torch.sigmoid(inside / CENTRE_WIDTH)).mean()


def choose_calibration(values: np.ndarray, right: np.ndarray, decay: float | None = None) -> Calibration:
    """Logistic regression with a little decay, on standardised signs, folded back."""
    decay = SCORE_DECAY if decay is None else decay
    mean, spread = values.mean(0), values.std(0) + 1e-6
    x, y = torch.tensor((values - mean) / spread), torch.tensor(right.astype(float))
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    steps = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        steps.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            x @ weights[1:] + weights[0], y, reduction="sum"
        )
        loss = loss + decay * weights[1:].square().sum()
        loss.backward()
        return loss

    steps.step(closure)  # type: ignore[no-untyped-call]
    learned = weights.detach().numpy()
    folded = learned[1:] / spread
    return Calibration(tuple(round(float(w), 5) for w in folded), round(float(learned[0] - folded @ mean), 5))


def fits(boxes: np.ndarray, study: Study, photos: np.ndarray) -> np.ndarray:
    return np.array([iou(box, study.truths[i]).max() for box, i in zip(boxes, photos, strict=True)])


def centred(boxes: np.ndarray, study: Study, photos: np.ndarray) -> np.ndarray:
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    pairs = zip(middles, (study.truths[i] for i in photos), strict=True)
    return np.array([((t[:, :2] <= m) & (m < t[:, 2:])).all(1).any() for m, t in pairs])


def cross_validate(study: Study, goal: np.ndarray, folds: int = 10, rounds: int = 2) -> dict[str, Any]:
    """Figures of photos that had no part in choosing the weights, averaged over rounds of folds."""
    count = len(study.truths)
    figures: dict[str, list[float]] = {}
    for seed in range(rounds):
        order = np.random.default_rng(seed).permutation(count)
        fit, hit, score = np.zeros(count), np.zeros(count, dtype=bool), np.zeros(count)
        for fold in range(folds):
            held, rest = order[fold::folds], np.setdiff1d(order, order[fold::folds])
            regression = choose_regression(study, rest, goal)
            mine = regress(study.probes[held], regression)
            fit[held], hit[held] = fits(mine, study, held), centred(mine, study, held)
            score[held] = chance(all_signs(study, held, mine), calibrate(study, rest, goal))
        right = fit >= 0.5
        error = np.abs(reliability(score, right)).mean()
        for name, number in (
            ("corloc", right.mean()), ("mean_iou", fit.mean()), ("box_acc_70", (fit >= 0.7).mean()),
            ("center_hit", hit.mean()), ("score_auroc", auroc(score, right) or 0.0), ("calibration_error", error),
            ("class_probability_auroc", auroc(study.own, right) or 0.0),
        ):  # fmt: skip
            figures.setdefault(name, []).append(float(number))
    return {name: round(float(np.mean(numbers)), 4) for name, numbers in figures.items()}


def calibrate(study: Study, photos: np.ndarray, goal: np.ndarray, folds: int = 5) -> Calibration:
    """The score's weights, from boxes of photos that had no part in choosing the boxes' weights: those would look
    better than they are."""
    boxes = np.zeros((len(photos), 4))
    order = np.random.default_rng(0).permutation(len(photos))
    for fold in range(folds):
        held, rest = order[fold::folds], np.setdiff1d(order, order[fold::folds])
        boxes[held] = regress(study.probes[photos[held]], choose_regression(study, photos[rest], goal))
    return choose_calibration(all_signs(study, photos, boxes), fits(boxes, study, photos) >= 0.5)


def reliability(score: np.ndarray, right: np.ndarray, bins: int = 10) -> np.ndarray:
    """Mean score minus share of right boxes, in `bins` groups of equal size."""
    groups = np.array_split(np.argsort(score), bins)
    return np.array([score[group].mean() - right[group].mean() for group in groups])


def all_signs(study: Study, photos: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return signs(study.sure[photos], boxes, study.probes[photos], study.heat[photos])


def choose(study: Study, parameters: Parameters, report: Callable[[str], None]) -> Parameters:
    everything, goal = np.arange(len(study.truths)), targets(study)
    report("held out: " + json.dumps(cross_validate(study, goal)))
    regression = choose_regression(study, everything, goal)
    fit = fits(regress(study.probes, regression), study, everything)
    report(f"on the photos it was chosen on: corloc {np.mean(fit >= 0.5):.4f}, mean_iou {fit.mean():.4f}")
    return replace(parameters, regression=regression, calibration=calibrate(study, everything, goal))


@click.command
@click.argument("network")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--maps", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the maps."
)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Local state dict.")
@click.option("--write", is_flag=True, help="Make the result the network's defaults.")
def command(network: str, dataset: Path, maps: Path, weights: Path | None, write: bool) -> None:
    """Choose parameters of NETWORK on the photos of DATASET."""
    from worker.networks.load import find_entry

    samples = read_dataset(dataset)
    parameters = main_parameters(network, find_entry(network).layers)
    file = maps / f"{network}-{dataset.name}.npz"
    if not file.is_file():
        compute_maps(load_network(network, weights=weights), parameters, samples, file)
    chosen = choose(load_study(file, parameters, samples), parameters, click.echo)
    if write:
        OUT.mkdir(exist_ok=True)
        target = OUT / f"{network}.json"
        target.write_text(json.dumps(chosen.to_dict(), indent=1) + "\n", encoding="utf-8")
        click.echo(f"written to {target.name}: {chosen.digest}")


if __name__ == "__main__":
    command()
