"""`boxlift bench engine`: the engine against captum, against plain forward passes, and against detectors."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.cli.chosen_network import ChosenNetwork
from backend.settings import Settings
from worker.choices import PRECISIONS
from worker.errors import BoxliftError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from worker.images import Photo

_PHOTOS = 8
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@click.command("engine")
@click.option("--network", help="Classifier to run [default: BOXLIFT_NETWORK or vgg16].")
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Local state dict for it.")
@click.option("--classes", type=click.Path(path_type=Path, dir_okay=False), help="Class names, one a line.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of photos [default: the demo's].",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What to measure as default precision [default: BOXLIFT_PRECISION].",
)
@click.option("--repeat", type=click.IntRange(1), default=7, show_default=True, help="Turns that count.")
@click.option("--detectors/--no-detectors", default=True, help="Also measure Faster R-CNN, with random weights.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def command(
    network: str | None,
    weights: Path | None,
    classes: Path | None,
    images: Path | None,
    precision: str | None,
    repeat: int,
    detectors: bool,
    as_json: bool,
) -> None:
    """Measure the engine's speed and memory, side by side with what it competes with.

    captum_ratio: classifying, DeepLIFT and guided backpropagation by stock captum in float32, over the same by
    Boxlift. forward_ratio: Boxlift over three plain forward passes. b1, b8: photos in a batch.
    localize_ratio: from the network's input to boxes, over the engine alone with the same inner layers.
    peak_memory_mib: of a worker with batches of 8, above its loaded weights.
    captum_peak_memory_mib: of captum's first run, above what is there before it.
    """
    from worker.attribution import parse_precision
    from worker.bench.engine import about_machine, measure_engine

    settings = Settings.from_env()
    settings = replace(settings, precision=precision or settings.precision)
    chosen = ChosenNetwork.of(settings, network, weights, classes)
    kind = parse_precision(settings.precision)
    # The network first: a mistake in its name or files is told before anything is measured.
    loaded, photos = chosen.load(settings, progress=False), _photos(images)
    figures: dict[str, Any] = {"network": loaded.name}
    figures["peak_memory_mib"] = _memory(settings, chosen, images)
    figures |= measure_engine(loaded, photos, repeat=repeat, precision=kind)
    if detectors:
        from worker.bench.detector import measure_detectors

        figures["detectors"] = measure_detectors(loaded, photos, precision=kind)
    figures |= about_machine(loaded.device)
    if as_json:
        click.echo(json.dumps(figures))
    else:
        _print(figures)


def _photos(folder: Path | None) -> list[Photo]:
    from backend.demo.photos import FOLDER
    from worker.images import decode

    files = sorted(path for path in (folder or FOLDER).iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise BoxliftError(f"there are no photos ({', '.join(_SUFFIXES)}) in {folder}: name another folder")
    return [decode(path.read_bytes(), name=path.name) for path in files[:_PHOTOS]]


def _memory(settings: Settings, chosen: ChosenNetwork, images: Path | None) -> float | None:
    """In a process of its own, so that nothing else counts. Raises BoxliftError with what it reports."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_memory_alone, args=(settings, chosen, images, theirs))
    process.start()
    theirs.close()
    try:
        kind, value = ours.recv()
    except EOFError:
        kind, value = "error", "the process that measures memory ended early: it may have run out of it"
    finally:
        ours.close()
        process.join()
    if kind == "error":
        raise BoxliftError(value)
    return None if value is None else float(value)


def _memory_alone(settings: Settings, chosen: ChosenNetwork, images: Path | None, reports: Connection) -> None:
    from worker.attribution import parse_precision
    from worker.bench.memory import measure_memory

    try:
        kind = parse_precision(settings.precision)
        loaded = chosen.load(settings, progress=False)
        reports.send(("peak", measure_memory(loaded, _photos(images), precision=kind)))
    except BoxliftError as error:
        reports.send(("error", str(error)))
    except Exception as error:
        reports.send(("error", f"memory could not be measured: {type(error).__name__}: {error}"))
        raise


def _print(figures: dict[str, Any], indent: str = "") -> None:
    for name, value in figures.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}")
            _print(value, indent + "  ")
        else:
            click.echo(f"{indent}{name:30} {f'{value:.3f}' if isinstance(value, float) else value}")
