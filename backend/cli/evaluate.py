"""`boxlift evaluate`: how good the boxes are on photos whose true boxes are known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from backend.settings import Settings
from worker.errors import UnknownNetworkError

if TYPE_CHECKING:
    from worker.evaluation.metrics import Found, Matches
    from worker.evaluation.run import Method, Run
    from worker.networks import Network


@click.command
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option("--network", help="Classifier to run [default: BOXLIFT_NETWORK or vgg16].")
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Local state dict for it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for an HTML report.")
@click.option("--compare", is_flag=True, help="The same photos with other methods beside ours (minutes).")
@click.option("--without", multiple=True, metavar="METHOD", help="Leave this method out of --compare; repeatable.")
@click.option("--max-boxes", type=click.IntRange(1), help="Of each photo [default: 1, or 10 for several objects].")
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only so many photos, from the first.")
def command(
    dataset: Path,
    network: str | None,
    weights: Path | None,
    as_json: bool,
    report: Path | None,
    compare: bool,
    without: tuple[str, ...],
    max_boxes: int | None,
    min_score: float,
    limit: int | None,
) -> None:
    """Measure boxes against the true ones of DATASET.

    DATASET is a folder with boxes.jsonl, a COCO instances file or its folder, or a Pascal VOC folder. Every figure
    comes with its 95 % bootstrap interval over the photos.
    """
    from worker.attribution import parse_precision
    from worker.evaluation.datasets import read_dataset
    from worker.evaluation.run import Ours
    from worker.localizer import Localizer

    samples = read_dataset(dataset)[:limit]
    settings = Settings.from_env()
    loaded = _network(settings, network, weights)
    localizer = Localizer(loaded, precision=parse_precision(settings.precision))
    several = any(len({item.label for item in sample.objects}) > 1 for sample in samples)
    boxes = max_boxes or (10 if several else 1)
    methods: Iterable[Method] = [Ours(localizer, localizer.version, max_boxes=boxes, min_score=min_score)]
    if compare:
        from worker.evaluation.methods import OTHERS, others

        if unknown := set(without) - set(OTHERS):
            raise click.UsageError(f"no method {', '.join(sorted(unknown))}: there are {'; '.join(OTHERS)}")
        methods = itertools.chain(methods, others(loaded, without))
    runs = _run(methods, samples, quiet=as_json)
    matches = _matches(loaded)
    results = {one.method: _figures(one, matches) for one in runs}
    if report is not None:
        from worker.evaluation.report import write_report

        write_report(report, dataset.name, runs, results, localizer)
    if as_json:
        click.echo(json.dumps(_document(dataset, runs, results), ensure_ascii=False))
    else:
        _print(runs, results)
    if any(one.failed for one in runs):
        raise SystemExit(1)


def _network(settings: Settings, name: str | None, weights: Path | None) -> Network:
    from worker.networks import load_network

    if weights is None and settings.weights and name in (None, settings.network):
        weights = Path(settings.weights)
    try:
        return load_network(
            name or settings.network, weights=weights, cache_dir=settings.cache_dir, device=settings.device
        )
    except UnknownNetworkError as error:
        raise click.UsageError(str(error)) from None


def _run(methods: Iterable[Method], samples: Any, *, quiet: bool) -> list[Run]:
    from worker.evaluation.methods import Thresholded, settle
    from worker.evaluation.run import run

    def follow(bars: Progress, bar: TaskID) -> Callable[[int], None]:
        return lambda count: bars.update(bar, completed=count)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    done = []
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bars:
        for number, method in enumerate(methods):
            bar = bars.add_task(method.name, total=len(samples))
            one = run(method, samples, known=number == 0, progress=follow(bars, bar))
            if isinstance(method, Thresholded):
                threshold, outcomes = settle(one.outcomes)
                one = replace(one, method=f"{one.method} @ {threshold:g}", outcomes=outcomes)
            done.append(one)
    return done


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


def _figures(one: Run, matches: Matches) -> dict[str, Any]:
    from worker.evaluation.metrics import figures, intervals, several

    values: dict[str, Any] = dict(figures(one.outcomes))
    spread = intervals(one.outcomes, figures)
    for kind, rule in (("agnostic", None), ("labelled", matches)):
        values |= {f"{name}_{kind}": value for name, value in several(one.outcomes, rule).items()}
        found = intervals(one.outcomes, partial(several, matches=rule), rounds=200)
        spread |= {f"{name}_{kind}": value for name, value in found.items()}
    values["seconds_per_image"] = one.seconds_per_image
    return {"figures": values, "intervals": spread}


def _document(dataset: Path, runs: list[Run], results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from worker.evaluation.metrics import per_class

    ours = runs[0]
    return {
        "dataset": dataset.name,
        "photos": len(ours.outcomes),
        "failed": [{"image": one.sample.path.name, "error": one.error} for one in ours.failed],
        "method": ours.method,
        **results[ours.method]["figures"],
        "intervals": results[ours.method]["intervals"],
        "per_class": [
            {"label": label, "photos": photos, "corloc": corloc, "mean_iou": fit}
            for label, photos, corloc, fit in per_class(ours.outcomes)
        ],
        "compare": {name: result["figures"] for name, result in results.items() if name != ours.method},
    }


SHOWN = (
    "corloc", "top1_loc", "gt_known_loc", "mean_iou", "box_acc_30", "box_acc_70", "center_hit", "overshoot_rate",
    "score_auroc", "precision_agnostic", "recall_agnostic", "f1_agnostic", "precision_labelled", "recall_labelled",
    "f1_labelled", "seconds_per_image",
)  # fmt: skip


def _print(runs: list[Run], results: dict[str, dict[str, Any]]) -> None:
    from worker.evaluation.metrics import per_class

    console = Console(highlight=False)
    ours = runs[0]
    table = Table(title=f"{len(ours.outcomes)} photos", title_justify="left")
    table.add_column("figure")
    for one in runs:
        table.add_column(one.method, justify="right", overflow="fold")
    for name in SHOWN:
        table.add_row(name, *(_cell(results[one.method], name) for one in runs))
    console.print(table)
    classes = per_class(ours.outcomes)
    if len(classes) < len(ours.outcomes):
        shown = Table(title="most frequent classes", title_justify="left")
        for heading in ("class", "photos", "corloc", "mean_iou"):
            shown.add_column(heading, justify="left" if heading == "class" else "right")
        for label, photos, corloc, fit in classes[:20]:
            shown.add_row(label, str(photos), f"{corloc:.2f}", f"{fit:.2f}")
        console.print(shown)
    for failed in ours.failed:
        console.print(f"[red]{failed.error}[/]")


def _cell(result: dict[str, Any], name: str) -> str:
    value = result["figures"].get(name)
    if value is None:
        return "–"
    low, high = result["intervals"].get(name, (None, None))
    return f"{value:.3f}" + (f" ({low:.3f}–{high:.3f})" if low is not None else "")
