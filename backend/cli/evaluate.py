"""`boxlift evaluate`: how good the boxes are on photos whose true boxes are known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from backend.cli.chosen_network import ChosenNetwork
from backend.settings import Settings
from worker.evaluation.names import OTHERS

if TYPE_CHECKING:
    import torch

    from worker.evaluation.datasets import Sample
    from worker.evaluation.groups import Group
    from worker.evaluation.metrics import Found, Matches
    from worker.evaluation.run import Method, Run
    from worker.images import ImageLimits
    from worker.networks import Network

SEVERAL = 10
"""Boxes of each photo where nobody says how many, and photos have several objects."""


def _methods(_context: click.Context, _option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in OTHERS]:
        raise click.BadParameter(f"no method {', '.join(unknown)}: there are {'; '.join(OTHERS)}")
    return names


@click.command
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option("--network", help="Classifier to run [default: BOXLIFT_NETWORK or vgg16].")
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Local state dict for it.")
@click.option("--classes", type=click.Path(path_type=Path, dir_okay=False), help="Its class names, one a line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for an HTML report.")
@click.option("--compare", is_flag=True, help="The same photos with other methods beside ours (minutes to hours).")
@click.option(
    "--without",
    multiple=True,
    metavar="METHOD",
    callback=_methods,
    help=f"Leave this method out of --compare; repeatable. There are {'; '.join(OTHERS)}.",
)
@click.option(
    "--max-boxes",
    type=click.IntRange(1),
    help=f"Of each photo [default: {SEVERAL} where any photo has more than one object, but 1 where each stands for "
    "one class, as in ILSVRC].",
)
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only so many photos, from the first.")
@click.option(
    "--sample", type=click.IntRange(1), help="Only so many photos, picked at random, always the same ones."
)
def command(
    dataset: Path,
    network: str | None,
    weights: Path | None,
    classes: Path | None,
    as_json: bool,
    report: Path | None,
    compare: bool,
    without: tuple[str, ...],
    max_boxes: int | None,
    min_score: float,
    limit: int | None,
    sample: int | None,
) -> None:
    """Measure boxes against the true ones of DATASET.

    DATASET is a folder with boxes.jsonl, a COCO instances file or its folder, or Pascal VOC: its root, a folder
    with XML beside the photos, or one XML file. Every figure comes with its 95 % bootstrap interval over the
    photos, and with --compare so do the differences between ours and each other method.
    """
    from worker.attribution import parse_precision
    from worker.evaluation.datasets import read_dataset
    from worker.evaluation.groups import per_class, strata
    from worker.evaluation.results import document, measure
    from worker.evaluation.run import Ours
    from worker.images import ImageLimits
    from worker.localizer import Localizer

    samples = _pick(read_dataset(dataset, empty=True), limit, sample)
    settings = Settings.from_env()
    loaded = ChosenNetwork.of(settings, network, weights, classes).load(settings)
    samples = _known(samples, loaded)
    precision = parse_precision(settings.precision)
    limits = ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    localizer = Localizer(loaded, engine=settings.engine, precision=precision)
    several = any(len(one.objects) > 1 and not one.one_class for one in samples)
    boxes = max_boxes or (SEVERAL if several else 1)
    ours = Ours(localizer, localizer.version, max_boxes=boxes, min_score=min_score)
    left_out: dict[str, str] = {}
    runs = [_run(ours, samples, limits)]
    if compare and runs[0].outcomes:
        runs += _compare(loaded, samples, limits, without, precision, left_out)
    if not runs[0].outcomes:
        raise click.ClickException(f"no photo could be read; the first: {runs[0].failed[0].error}")
    matches = _matches(loaded)
    results = measure(runs, matches)
    rows = per_class(runs[0].outcomes, matches if several or boxes > 1 else None)
    kinds = strata(runs[0].outcomes)
    if report is not None:
        from worker.evaluation.report import GALLERY, write_report

        with _bar("report", 3 * GALLERY) as told:
            write_report(
                report, dataset.name, runs, results, localizer,
                classes=rows, strata=kinds, left_out=left_out, precision=precision, progress=told,
            )  # fmt: skip
    if as_json:
        made = document(dataset.name, runs, results, classes=rows, strata=kinds, left_out=left_out)
        click.echo(json.dumps(made, ensure_ascii=False))
    else:
        _print(runs, results, rows, kinds)
    if any(one.failed for one in runs):
        raise SystemExit(1)


def _pick(samples: Sequence[Sample], limit: int | None, sample: int | None) -> list[Sample]:
    chosen = list(samples[:limit])
    if sample is not None and sample < len(chosen):
        places = random.Random(0).sample(range(len(chosen)), sample)  # noqa: S311 - the same photos every time
        chosen = [chosen[place] for place in sorted(places)]
    if not any(one.objects for one in chosen):
        raise click.ClickException("none of the chosen photos has an object: choose more of them")
    return chosen


def _known(samples: Sequence[Sample], network: Network) -> list[Sample]:
    """The samples with the network's own class indices; says what it does not know."""
    from worker.evaluation.datasets import for_network

    own = network.classes != network.entry.classes()
    known, lost = for_network(samples, network.classes, own=own)
    if lost:
        names = sorted(lost, key=lambda name: (-lost[name], name))
        click.echo(
            f"{sum(lost.values())} objects have a class_index that says nothing about this network, which has no "
            f"class of their names either ({', '.join(names[:5])}{', …' if len(names) > 5 else ''}): they are in "
            "no figure of right classes",
            err=True,
        )
    return known


def _compare(
    network: Network,
    samples: Sequence[Sample],
    limits: ImageLimits,
    without: Collection[str],
    precision: torch.dtype | None,
    left_out: dict[str, str],
) -> list[Run]:
    """Runs of the other methods; one that fails on the way is put into `left_out`, and the others go on."""
    from worker.evaluation.methods import others, reason

    done: list[Run] = []
    for method in others(network, without, precision=precision, left_out=left_out):
        try:
            done += method.runs(_run(method, samples, limits))
        except Exception as error:  # noqa: BLE001 - hours of other methods' work are not to be lost
            left_out |= dict.fromkeys(getattr(method, "names", (method.name,)), reason(error))
    for name, why in left_out.items():
        click.echo(f"{name} is left out: {why}", err=True)
    return done


def _run(method: Method, samples: Sequence[Sample], limits: ImageLimits) -> Run:
    from worker.evaluation.run import run

    with _bar(method.name, len(samples)) as told:
        return run(method, samples, limits=limits, progress=told)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr where that is a terminal; what it gives is told how much is done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        bar = bars.add_task(title, total=total)
        yield lambda count: bars.update(bar, completed=count)


def _matches(network: Network) -> Matches:
    """Whether a box's class means a label of the data set: the same word, or a kind of it."""
    from functools import cache

    from backend.labelling.imagenet import taxonomy

    table = taxonomy()
    synsets = table.synsets_of(network.classes)

    @cache
    def means(index: int, label: str) -> bool:
        synset = synsets[index]
        if synset is None:
            return network.classes[index].casefold() == label.casefold()
        wanted = {wnid for spelling in table.spellings(label) for wnid in table.meanings.get(spelling, ())}
        return network.classes[index].casefold() == label.casefold() or bool(wanted & set(table.ancestors(synset)))

    def matches(found: Found, label: str) -> bool:
        return found.class_index is not None and means(found.class_index, label)

    return matches


SHOWN = (
    "corloc", "top1_loc", "gt_known_loc", "top1", "mean_iou", "box_acc_30", "box_acc_50", "box_acc_70",
    "center_hit", "overshoot_rate", "score_auroc", "precision_agnostic", "recall_agnostic", "f1_agnostic",
    "precision_labelled", "recall_labelled", "f1_labelled", "boxes", "objects", "seconds_per_image",
)  # fmt: skip


def _print(
    runs: Sequence[Run], results: dict[str, dict[str, Any]], classes: Sequence[Group], kinds: Sequence[Group]
) -> None:
    console = Console(highlight=False)
    ours, others = runs[0], runs[1:]
    table = Table(title=f"{len(ours.outcomes)} photos", title_justify="left")
    table.add_column("figure")
    for one in runs:
        table.add_column(one.heading, justify="right", overflow="fold")
    for name in SHOWN:
        table.add_row(name, *(_cell(results[one.method], name) for one in runs))
    console.print(table)
    if others:
        console.print(_gains(others, results))
    console.print(_groups("by size and place of the objects", kinds))
    if len(classes) < len(ours.outcomes):
        console.print(_groups("most frequent classes", classes[:20]))
    for failed in ours.failed:
        console.print(f"[red]{failed.error}[/]")


def _gains(others: Sequence[Run], results: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="ours beside each, on the same photos (95 % intervals)", title_justify="left")
    for heading in ("method", "corloc, ours minus this", "mean_iou, ours minus this", "F1, ours over this"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for one in others:
        result = results[one.method]
        gains = [result["ours_minus"].get(name) for name in ("corloc", "mean_iou")]
        table.add_row(one.method, *(_gain(gain, "+.3f") for gain in gains), _gain(result["f1_ratio"], ".2f"))
    return table


def _gain(gain: dict[str, Any] | None, form: str) -> str:
    if gain is None:
        return "–"
    low, high = gain["interval"]
    return f"{gain['value']:{form}} ({low:{form}} to {high:{form}})"


def _groups(title: str, rows: Sequence[Group]) -> Table:
    table = Table(title=title, title_justify="left")
    labelled = any(row.f1_labelled is not None for row in rows)
    shown = ["photos", "objects", "corloc", "mean_iou", "recall_agnostic"]
    shown += ["precision_labelled", "recall_labelled", "f1_labelled"] if labelled else []
    table.add_column("")
    for name in shown:
        table.add_column(name, justify="right")
    for row in rows:
        values = [getattr(row, name) for name in shown]
        table.add_row(
            row.name, *("–" if v is None else str(v) if isinstance(v, int) else f"{v:.2f}" for v in values)
        )
    return table


def _cell(result: dict[str, Any], name: str) -> str:
    value = result["figures"].get(name)
    if value is None:
        return "–"
    if name in ("boxes", "objects"):
        return f"{value:.0f}"
    low, high = result["intervals"].get(name, (None, None))
    return f"{value:.3f}" + (f" ({low:.3f}–{high:.3f})" if low is not None else "")
