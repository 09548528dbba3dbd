"""Measure what tuning on people's corrections is worth, on photos with known boxes.

    python scripts/tuning_gain.py efficientnet_lite0 ../shared/data/ilsvrc --maps /tmp/maps
    python scripts/tuning_gain.py efficientnet_lite0 ../shared/data/coco --maps /tmp/maps --corrections 64

Some photos are taken as corrections, the others are the test; twenty random splits. Shipped defaults were chosen on
the photos of ILSVRC, so that they look better on these than on photos that nobody has seen. Therefore each split is
measured from several starts:

    shipped     the network's defaults as they are
    unseen      defaults chosen, in the same way, on --prior photos that are neither corrections nor test
    unmeasured  what a network gets that nobody has measured: no refiner, no score

`--loose 1.3` plays people who draw everything that much wider and taller. Gains are differences on the same test
photos: mean over the splits, and the worst. `published` counts the splits in which tuning found its gain certain;
in the others nothing changes, and their gain is 0. `always` is the gain had it always been published.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from choose_parameters import compute_maps

from worker.boxes import Floats
from worker.evaluation.datasets import read_dataset
from worker.learning import Maps, fit_regression, held_out_calibration, likeliest, overlaps, study
from worker.learning.maps import Integers
from worker.learning.tuning import drawn, fit
from worker.networks import load_network
from worker.networks.load import find_entry
from worker.parameters import GUIDED, Parameters, Source

STARTS = ("shipped", "unseen", "unmeasured")


@dataclass(frozen=True)
class Split:
    """What one split gave."""

    corloc: float
    """Before, on the test."""
    mean_iou: float
    corloc_gain: float
    mean_iou_gain: float
    always_corloc: float
    always_mean_iou: float
    published: bool
    seconds: float


def unmeasured(parameters: Parameters, network: str) -> Parameters:
    """What `Parameters.of` gives a network without a file of its own, of these maps."""
    layers = find_entry(network).layers[:2]
    known = {source.name for source in parameters.sources}
    inner = tuple(Source(name, sigma=0.03) for name in layers if name in known)
    first = inner or tuple(s for s in parameters.sources if s.name != GUIDED)[:2]
    return Parameters(sources=(*first, Source(GUIDED, sigma=0.04)))


def measure(
    maps: Maps, truths: list[Floats], parameters: Parameters, corrections: Integers, test: Integers, seed: int
) -> Split:
    """Tune on some photos, look at the others."""
    began = time.monotonic()
    found = fit(maps.take(corrections), [truths[photo] for photo in corrections], parameters, seed=seed)
    seconds = time.monotonic() - began
    rest, drawn_there = maps.take(test), [truths[photo] for photo in test]

    def fits(some: Parameters) -> Floats:
        photos = study(rest, some, drawn_there)
        return overlaps(drawn(photos, some), photos, np.arange(len(test)))

    before, after, always = fits(parameters), fits(found.parameters), fits(found.candidate)
    return Split(
        corloc=float((before >= 0.5).mean()),
        mean_iou=float(before.mean()),
        corloc_gain=float((after >= 0.5).mean() - (before >= 0.5).mean()),
        mean_iou_gain=float(after.mean() - before.mean()),
        always_corloc=float((always >= 0.5).mean() - (before >= 0.5).mean()),
        always_mean_iou=float(always.mean() - before.mean()),
        published=found.boxes,
        seconds=seconds,
    )


def summary(splits: list[Split]) -> dict[str, float]:
    """Means over splits, and the worst gains."""

    def mean(name: str) -> float:
        return round(float(np.mean([getattr(one, name) for one in splits])), 4)

    names = ("corloc", "mean_iou", "corloc_gain", "mean_iou_gain", "always_corloc", "always_mean_iou", "published")
    told = {name: mean(name) for name in names}
    told["worst_corloc_gain"] = round(min(one.corloc_gain for one in splits), 4)
    told["worst_mean_iou_gain"] = round(min(one.mean_iou_gain for one in splits), 4)
    told["worst_always_corloc"] = round(min(one.always_corloc for one in splits), 4)
    return told | {"seconds": round(float(np.mean([one.seconds for one in splits])), 2)}


def scaled(truths: list[Floats], factor: float) -> list[Floats]:
    """Boxes of people who draw wider and taller by a factor."""
    found = []
    for boxes in truths:
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
        found.append(np.clip(np.concatenate([middle - half, middle + half], axis=1), 0.0, 1.0))
    return found


@click.command
@click.argument("network")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--maps", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the maps."
)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Local state dict.")
@click.option("--corrections", type=int, default=50, show_default=True, help="Photos taken as corrections.")
@click.option("--prior", type=int, default=200, show_default=True, help="Photos of the start `unseen`.")
@click.option("--splits", type=int, default=20, show_default=True, help="Random splits.")
@click.option("--loose", type=float, default=1.0, show_default=True, help="How much larger people draw.")
@click.option("--start", "starts", multiple=True, type=click.Choice(STARTS), default=STARTS, help="Which starts.")
def command(
    network: str,
    dataset: Path,
    maps: Path,
    weights: Path | None,
    corrections: int,
    prior: int,
    splits: int,
    loose: float,
    starts: tuple[str, ...],
) -> None:
    """Take photos of DATASET as corrections of what NETWORK draws."""
    samples = [sample for sample in read_dataset(dataset) if sample.objects]
    shipped = Parameters.of(network, find_entry(network).layers)
    file = maps / f"{network}-{dataset.name}.npz"
    if not file.is_file():
        compute_maps(load_network(network, weights=weights), shipped, samples).save(file)
    true = [np.array([item.box for item in sample.objects]) for sample in samples]
    truths = scaled(true, loose)
    seen = Maps.load(file)
    for start in starts:
        parameters = unmeasured(shipped, network) if start == "unmeasured" else shipped
        plain = study(seen, parameters, true)
        found = []
        for seed in range(splits):
            order = np.random.default_rng(seed).permutation(len(samples))
            few, rest = order[:corrections], order[corrections:]
            if start == "unseen":
                others, rest = rest[:prior], rest[prior:]
                if len(rest) < 50:
                    raise click.UsageError(f"{len(rest)} photos are left to test on: give a smaller --prior")
                goal = likeliest(plain)
                parameters = replace(
                    shipped,
                    regression=fit_regression(plain, others, goal),
                    calibration=held_out_calibration(plain, others, goal),
                )
            found.append(measure(seen, truths, parameters, few, rest, seed))
        what = {"network": network, "photos": dataset.name, "corrections": corrections, "loose": loose}
        click.echo(json.dumps(what | {"start": start, "splits": splits} | summary(found)))


if __name__ == "__main__":
    command()
