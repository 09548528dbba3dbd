"""`boxlift bench preannotate`: a folder through Redis, a worker and files, beside the network alone."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.settings import Settings
from worker.errors import BoxliftError

if TYPE_CHECKING:
    from backend.bulk.sources import Source
    from backend.bulk.workforce import Workforce
    from worker.localizer import Localizer

_CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="{label}" model_unmatched="true"/></RectangleLabels></View>'
)
_WARM = 2
"""Batches that nobody counts: what is compiled and allocated once."""


@click.command("preannotate")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--network", default="efficientnet_lite0", show_default=True, help="Classifier.")
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Local state dict for it.")
@click.option("--photos", "most", type=click.IntRange(16), help="Only the first photos of FOLDER.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Most images in a batch.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def command(folder: Path, network: str, weights: Path | None, most: int | None, batch: int, as_json: bool) -> None:
    """Measure how much of the network's own rate is left when a folder is pre-annotated.

    The same photos go through a Redis and one worker of this command's own, as `boxlift preannotate FOLDER` does it
    (from the first request to the last outcome; reading and decoding included), and, half of them before that and
    half after it, through the network in this process, in the same batches (already decoded: only the network and
    its boxes count). Both have seen some photos before the clock starts. REDIS_URL is not touched.
    """
    try:
        figures = measure(folder, network, weights, most, batch)
    except BoxliftError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        click.echo(f"{name:24} {value:,.3f}" if isinstance(value, float) else f"{name:24} {value}")


def measure(folder: Path, network: str, weights: Path | None, most: int | None, batch: int) -> dict[str, Any]:
    """The figures. Raises SourceError, NetworkError, QueueError, ProcessError."""
    from backend.bulk.sources import read_source
    from backend.bulk.workforce import Hire, workforce
    from backend.cli.worker import Start, load
    from backend.labelling import parse_config

    settings = replace(Settings.from_env(), network=network, weights=str(weights.absolute()) if weights else "")
    hire = Hire(network=network, weights=settings.weights, batch=batch)
    nowhere = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_")}
    with tempfile.TemporaryDirectory(prefix="boxlift-bench-") as spool:
        labelling = parse_config(_CONFIG.format(label="Thing"))
        found = read_source(folder, labelling, prefix=None, spool=Path(spool).resolve())
        items = found.items[:most]
        files = [folder / item.names[0] for item in items]
        localizer = load(Start(settings, settings.device, "", burst=False, batch=batch, loaders=1))
        with workforce(settings, hire, roots=found.roots, environ=nowhere) as force:
            warm = batch * _WARM
            _alone(localizer, files[:warm], batch)
            _queued(force, replace(found, items=items[:warm]), "Warm", Path(spool))
            half = len(files) // 2
            alone = _alone(localizer, files[:half], batch)
            summary = _queued(force, replace(found, items=items), "Thing", Path(spool))
            alone += _alone(localizer, files[half:], batch)
    return {
        "network": network,
        "version": summary.version,
        "photos": len(files),
        "failed": summary.failed,
        "batch": batch,
        "engine_per_s": round(len(files) / alone, 3),
        "preannotate_per_s": round(summary.rate, 3),
        "rate_vs_engine": round(summary.rate * alone / len(files), 4),
    }


def _alone(localizer: Localizer, files: Sequence[Path], batch: int) -> float:
    """Seconds that the network and its boxes take, in this process."""
    from worker.images import decode

    seconds = 0.0
    for start in range(0, len(files), batch):
        photos = [decode(file.read_bytes(), name=file.name) for file in files[start : start + batch]]
        begun = time.perf_counter()
        localizer.localize(photos)
        seconds += time.perf_counter() - begun
    return seconds


def _queued(force: Workforce, source: Source, label: str, folder: Path) -> Any:
    """The summary of a run through the queue. Another label is another plan: nothing of it is known before."""
    from backend.bulk.files import Order, preannotate_files

    order = Order(source, _CONFIG.format(label=label), folder / f"{label}.json")
    return preannotate_files(force, order, lambda *_: None, lambda text: None)
