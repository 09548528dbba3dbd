"""Choose a network's parameters on photos with known boxes, and say by cross-validation what they are worth.

    python scripts/choose_parameters.py efficientnet_lite0 ../shared/data/ilsvrc --maps /tmp/maps
    python scripts/choose_parameters.py vgg16 ../shared/data/ilsvrc --maps /tmp/maps --weights vgg16.safetensors

The maps of every photo are computed once and kept in the folder of `--maps`; everything after that takes a minute.
Weights of the box regression start from ridge regression and are then moved by gradient descent on what counts:
IoU, IoU ≥ 0.5 and the centre within the object. Photos are mirrored, so that left and right come out alike. Figures
printed as "held out" are of photos that had no part in choosing the weights (10 folds, twice); the weights that are
written are then chosen on all photos. With --write they become the network's defaults;
what scripts/choose_extras.py adds to them is to be chosen again then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from worker.evaluation.datasets import Sample, read_dataset
from worker.images import Photo, decode
from worker.learning import (
    Maps,
    Study,
    cross_validate,
    fit_regression,
    held_out_calibration,
    likeliest,
    map_photos,
    overlaps,
    study,
)
from worker.localizer import Localizer
from worker.networks import Network, load_network
from worker.parameters import GUIDED, Parameters, Source
from worker.regression import regress

SOURCES = {
    "efficientnet_lite0": ("blocks.15", "blocks.14", "blocks.10", "blocks.4", "blocks.2", GUIDED),
    "vgg16": ("features.30", "features.22", "features.9", GUIDED),
}
"""Inner layers of falling depth and guided backpropagation: each alone is worse, more of them are no better."""
LEAN = {"efficientnet_lite0": 0.45}
"""By network, `Parameters.lean`: from 0.4 to 0.5 the figures are much the same."""
OUT = Path(__file__).parents[1] / "worker" / "networks" / "parameters"


def main_parameters(network: str, layers: tuple[str, ...]) -> Parameters:
    names = SOURCES.get(network) or (*layers[:3], GUIDED)
    sources = tuple(
        Source(name, sigma=0.04, part="absolute") if name == GUIDED else Source(name, sigma=0.03) for name in names
    )
    return Parameters(sources=sources, threshold=0.15, lean=LEAN.get(network, 0.0))


def compute_maps(network: Network, parameters: Parameters, samples: list[Sample]) -> Maps:
    """Logits of every photo and the maps of its predicted class."""

    def photos() -> Iterator[tuple[Photo, None]]:
        with click.progressbar(samples, label="maps", file=sys.stderr) as shown:
            for sample in shown:
                yield decode(sample.path.read_bytes()), None

    return Maps.joined(list(map_photos(Localizer(network, parameters), photos())))


def choose(photos: Study, parameters: Parameters, report: Callable[[str], None]) -> Parameters:
    everything, goal = np.arange(len(photos)), likeliest(photos)
    report("held out: " + json.dumps(cross_validate(photos, goal, below=parameters.lean)))
    regression = fit_regression(photos, everything, goal)
    fit = overlaps(regress(photos.probes, regression), photos, everything)
    report(f"on the photos it was chosen on: corloc {np.mean(fit >= 0.5):.4f}, mean_iou {fit.mean():.4f}")
    return replace(parameters, regression=regression, calibration=held_out_calibration(photos, everything, goal))


def write(network: str, parameters: Parameters) -> None:
    """Make them the network's defaults."""
    OUT.mkdir(exist_ok=True)
    target = OUT / f"{network}.json"
    target.write_text(json.dumps(parameters.to_dict(), indent=1) + "\n", encoding="utf-8")
    click.echo(f"written to {target.name}: {parameters.digest}")


@click.command
@click.argument("network")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--maps", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the maps."
)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Local state dict.")
@click.option("--write", "make_default", is_flag=True, help="Make the result the network's defaults.")
def command(network: str, dataset: Path, maps: Path, weights: Path | None, make_default: bool) -> None:
    """Choose parameters of NETWORK on the photos of DATASET."""
    from worker.networks.load import find_entry

    samples = read_dataset(dataset)
    parameters = main_parameters(network, find_entry(network).layers)
    file = maps / f"{network}-{dataset.name}.npz"
    if not file.is_file():
        compute_maps(load_network(network, weights=weights), parameters, samples).save(file)
    truths = [np.array([item.box for item in sample.objects]) for sample in samples]
    chosen = choose(study(Maps.load(file), parameters, truths), parameters, click.echo)
    if make_default:
        write(network, chosen)


if __name__ == "__main__":
    command()
