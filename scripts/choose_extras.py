"""Choose what several boxes of one photo need to score, on photos in which all objects have their boxes.

    python scripts/choose_extras.py efficientnet_lite0 ../shared/data/coco
    python scripts/choose_extras.py vgg16 ../shared/data/coco --weights vgg16.safetensors

Follows scripts/choose_parameters.py, whose parameters it completes: weights of the score of every box but a photo's
first, and the least score that such a box needs. Figures are of photos that had no part in choosing the weights
(10 folds, thrice); the least score is the one with the best F1 there. With --write they join the defaults.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from choose_parameters import write

from worker.boxes import as_box
from worker.evaluation.datasets import Sample, read_dataset
from worker.evaluation.metrics import Found, Outcome, figures
from worker.images import Photo, decode
from worker.learning import Candidates, candidates, chosen, fit_extra
from worker.localizer import Localizer
from worker.networks import load_network
from worker.parameters import Calibration, Parameters
from worker.scoring import EXTRA

SPLITS = (0.2, 0.3, 0.4, 0.5, 0.65)
"""Regions are looked for at more levels than without these weights, which tell the worthwhile ones."""
LEAST = tuple(round(0.04 + 0.01 * step, 2) for step in range(19))
MOST_BOXES = 10
EVEN = Calibration((0.0,) * len(EXTRA), 0.0)
"""Until better weights are known: that there are any keeps what they do not look at from being computed."""


def cross_validated(
    samples: Sequence[Sample], photos: Sequence[Candidates], overlap: float, folds: int = 10, rounds: int = 3
) -> dict[float, dict[str, float]]:
    """Least score → mean precision, recall and F1 (class-agnostic) of photos held out."""
    truths = [Outcome(sample).truths for sample in samples]
    told: dict[float, list[dict[str, float | None]]] = {least: [] for least in LEAST}
    for seed in range(rounds):
        order = np.random.default_rng(seed).permutation(len(samples))
        weights: dict[int, Calibration] = {}
        for fold in range(folds):
            rest = np.setdiff1d(order, order[fold::folds])
            learned = fit_extra([photos[n] for n in rest], [truths[n] for n in rest])
            weights |= {int(n): learned for n in order[fold::folds]}
        for least in LEAST:
            outcomes = [
                outcome(sample, photos[n], chosen(photos[n], weights[n], least, overlap))
                for n, sample in enumerate(samples)
            ]
            told[least].append(figures(outcomes))
    names = ("precision_agnostic", "recall_agnostic", "f1_agnostic")
    return {
        least: {name: round(float(np.mean([one[name] or 0.0 for one in found])), 4) for name in names}
        for least, found in told.items()
    }


def outcome(sample: Sample, photo: Candidates, boxes: Sequence[int]) -> Outcome:
    order = boxes[:MOST_BOXES]
    return Outcome(sample, tuple(Found(as_box(photo.boxes[i]), 1.0 - rank / 100) for rank, i in enumerate(order)))


@click.command
@click.argument("network")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Local state dict.")
@click.option("--write", "make_default", is_flag=True, help="Make the result part of the network's defaults.")
def command(network: str, dataset: Path, weights: Path | None, make_default: bool) -> None:
    """Choose the score of several boxes for NETWORK on the photos of DATASET."""
    loaded = load_network(network, weights=weights)
    parameters = replace(Parameters.of(network, loaded.layers), splits=SPLITS, extra=EVEN)
    samples = read_dataset(dataset)

    def photos() -> Iterator[Photo]:
        with click.progressbar(samples, label="photos", file=sys.stderr) as shown:
            for sample in shown:
                yield decode(sample.path.read_bytes())

    found = list(candidates(Localizer(loaded, parameters), photos()))
    told = cross_validated(samples, found, parameters.overlap)
    for least, values in told.items():
        click.echo(f"held out, score from {least}: {json.dumps(values)}")
    best = max(told, key=lambda least: told[least]["f1_agnostic"])
    extra = fit_extra(found, [Outcome(sample).truths for sample in samples])
    kept = [
        outcome(sample, photo, chosen(photo, extra, best, parameters.overlap))
        for sample, photo in zip(samples, found, strict=True)
    ]
    click.echo(f"on the photos it was chosen on: F1 {figures(kept)['f1_agnostic']:.4f} from {best}")
    if make_default:
        write(network, replace(parameters, extra=extra, extra_score=best))


if __name__ == "__main__":
    command()
