"""`boxlift localize`: boxes for image files, for people or as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.chosen_network import ChosenNetwork
from backend.settings import Settings
from worker.choices import ENGINES, PRECISIONS
from worker.errors import ImageDecodeError, ImageError, ImageFetchError

if TYPE_CHECKING:
    from worker.images import ImageLimits, Photo
    from worker.localizer import Localizer, View

BATCH = 8

Outcome = tuple[str, "Photo", "View"] | tuple[str, ImageError]


@click.command
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
@click.option("--network", help="Classifier to run [default: BOXLIFT_NETWORK or vgg16].")
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Local state dict for it.")
@click.option("--classes", type=click.Path(path_type=Path, dir_okay=False), help="Class names, one a line.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Code that computes the maps [default: BOXLIFT_ENGINE or boxlift].",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Number format of the maps [default: BOXLIFT_PRECISION or auto].",
)
@click.option("--max-boxes", type=click.IntRange(1), default=1, show_default=True, help="Of each image.")
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per image.")
@click.option(
    "--panels", type=click.Path(path_type=Path, file_okay=False), help="Folder for a PNG of each image's maps."
)
def command(
    images: tuple[str, ...],
    network: str | None,
    weights: Path | None,
    classes: Path | None,
    engine: str | None,
    precision: str | None,
    max_boxes: int,
    min_score: float,
    as_json: bool,
    panels: Path | None,
) -> None:
    """Find boxes in image files.

    Boxes are x0, y0, x1, y1 in pixels of the upright image. With --json convergence_delta tells how far DeepLIFT's
    contributions, which should sum to the change of the class's logit, are from it.

    Exit status 0 if all images worked, 1 if some failed, 2 for bad usage.
    """
    settings = Settings.from_env()
    localizer = _load(settings, network, weights, classes, engine, precision)
    found = _look(localizer, images, _limits(settings), max_boxes=max_boxes, min_score=min_score)
    if panels is not None:
        found = _with_panels(found, panels)
    failed = _print_json(found, localizer.version) if as_json else _print_table(found, localizer.version)
    if failed:
        raise SystemExit(1)


def _load(
    settings: Settings,
    network: str | None,
    weights: Path | None,
    classes: Path | None,
    engine: str | None,
    precision: str | None,
) -> Localizer:
    from worker.attribution import parse_precision
    from worker.localizer import Localizer

    loaded = ChosenNetwork.of(settings, network, weights, classes).load(settings)
    return Localizer(
        loaded, engine=engine or settings.engine, precision=parse_precision(precision or settings.precision)
    )


def _limits(settings: Settings) -> ImageLimits:
    from worker.images import ImageLimits

    return ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


def _look(
    localizer: Localizer, images: Sequence[str], limits: ImageLimits, *, max_boxes: int, min_score: float
) -> Iterator[Outcome]:
    """Every image with what was seen in it, or why it could not be read, in order."""
    for start in range(0, len(images), BATCH):
        names = images[start : start + BATCH]
        loaded = [_read(name, limits) for name in names]
        photos = [item for item in loaded if not isinstance(item, ImageError)]
        views = iter(localizer.view(photos, max_boxes=max_boxes, min_score=min_score))
        for name, item in zip(names, loaded, strict=True):
            yield (name, item) if isinstance(item, ImageError) else (name, item, next(views))


def _read(name: str, limits: ImageLimits) -> Photo | ImageError:
    from worker.images import decode

    path = Path(name)
    try:
        if path.is_dir():
            return ImageDecodeError(f"{name} is a folder: name the images in it")
        with path.open("rb") as file:
            return decode(file.read(limits.max_bytes + 1), limits, name)
    except OSError as error:
        return ImageFetchError(f"{name} cannot be read: {error.strerror}")
    except ImageError as error:
        return error


def _with_panels(found: Iterator[Outcome], folder: Path) -> Iterator[Outcome]:
    """The same, writing a picture of each image's maps on the way."""
    from worker.panels import panels

    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for outcome in found:
        if len(outcome) == 3:
            name, photo, view = outcome
            stem = free = Path(name).stem
            number = 2
            while free in taken:
                free, number = f"{stem}-{number}", number + 1
            taken.add(free)
            panels(photo, view).save(folder / f"{free}.png")
        yield outcome


def _print_json(found: Iterator[Outcome], version: str) -> int:
    failed = 0
    for outcome in found:
        line: dict[str, Any]
        if len(outcome) == 2:
            line = {"image": outcome[0], "error": str(outcome[1])}
            failed += 1
        else:
            name, photo, view = outcome
            line = {
                "image": name,
                "width": photo.width,
                "height": photo.height,
                "model_version": version,
                "convergence_delta": view.delta,
                "detections": [asdict(item) for item in view.detections],
            }
        click.echo(json.dumps(line, ensure_ascii=False))
    return failed


def _print_table(found: Iterator[Outcome], version: str) -> int:
    table = Table(title=version, title_justify="left")
    for heading, side in (
        ("image", "left"),
        ("size", "right"),
        ("label", "left"),
        ("score", "right"),
        ("box", "left"),
    ):
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    failed = 0
    for outcome in found:
        if len(outcome) == 2:
            table.add_row(Text(outcome[0]), "", Text(str(outcome[1]), style="red"), "", "")
            failed += 1
            continue
        name, photo, view = outcome
        size = f"{photo.width} × {photo.height}"
        if not view.detections:
            table.add_row(Text(name), size, Text("nothing found", style="dim"), "", "")
        for item in view.detections:
            box = ", ".join(f"{side:.0f}" for side in item.box)
            table.add_row(Text(name), size, Text(item.label), f"{item.score:.2f}", box)
    Console(highlight=False).print(table)
    return failed
