"""`boxlift preannotate`: a whole data set through the queue, of a Label Studio project or out of files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.errors import BoxliftError

if TYPE_CHECKING:
    from backend.bulk.project import Which
    from backend.bulk.summary import Summary
    from backend.bulk.workforce import Hire
    from backend.cli.progress import Bar
    from backend.settings import Settings

SOME_FAILED, NOTHING_DONE, INTERRUPTED = 1, 3, 130


class NothingDone(click.ClickException):
    """It could not begin, or not go on."""

    exit_code = NOTHING_DONE


@click.command()
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option("--project", type=click.IntRange(1), help="Label Studio project, instead of SOURCE.")
@click.option(
    "--filter", "view", default="", metavar="TAB", help="Only tasks of this Data Manager tab (number or title)."
)
@click.option(
    "--only-missing", is_flag=True, help="Only tasks that have no prediction of ours, of whatever version."
)
@click.option(
    "--replace",
    "replacing",
    is_flag=True,
    help="Delete our older predictions afterwards where nobody has annotated.",
)
@click.option("--unannotated", is_flag=True, help="Only tasks that nobody has annotated or skipped.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Labelling config for SOURCE (XML).",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write (a folder for yolo).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["label-studio", "coco", "yolo"]),
    default="label-studio",
    show_default=True,
    help="Of the output.",
)
@click.option(
    "--prefix",
    help="What comes before a photo's path below FOLDER in its address in Label Studio "
    "[default: /data/local-files/?d=FOLDER/].",
)
@click.option("--network", help="Classifier, if a worker has to be started.")
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Local state dict for it.")
@click.option("--device", help="What it computes on.")
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="How many of it.")
@click.option("--batch", type=click.IntRange(1, 1024), default=8, show_default=True, help="Its images in a batch.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end instead of tables.")
def command(
    source: Path | None,
    project: int | None,
    view: str,
    only_missing: bool,
    replacing: bool,
    unannotated: bool,
    config: Path | None,
    out: Path | None,
    form: str,
    prefix: str | None,
    network: str | None,
    weights: Path | None,
    device: str | None,
    processes: int,
    batch: int,
    as_json: bool,
) -> None:
    """Draw boxes in all tasks of a Label Studio project, or in SOURCE: a folder of photos, Label Studio's tasks
    (.json, .jsonl), or a table with a header (.csv, .tsv).

    \b
    boxlift preannotate --project 1 --filter "New photos"
    boxlift preannotate photos/ --config config.xml --out predictions.json

    Work goes to the workers on REDIS_URL. Where that is not set, or no worker is alive there, one is started for as
    long as it takes. However a run is interrupted, the same command goes on where it was.

    Exit status: 0 if all tasks have their prediction, 1 if some failed, 2 for bad usage, 3 if it could not begin or
    not go on, 130 after Ctrl-C.
    """
    from backend.bulk.workforce import Hire
    from backend.cli.progress import Bar
    from backend.settings import Settings

    _check_usage(click.get_current_context().params)
    hire = Hire(
        network=network or "",
        weights=str(weights.absolute()) if weights else "",
        device=device or "",
        processes=processes,
        batch=batch,
    )
    settings = Settings.from_env()
    try:
        with Bar() as bar:
            if project is not None:
                which: Which = "only-missing" if only_missing else "replace" if replacing else "present"
                summary = _project(settings, hire, bar, project, view, which, unannotated)
            else:
                assert source is not None and config is not None and out is not None  # noqa: S101, PT018 - checked
                summary = _files(settings, hire, bar, source, config, out, form, prefix)
    except BoxliftError as error:
        raise NothingDone(str(error)) from None
    except KeyboardInterrupt:
        click.echo("Interrupted: the same command goes on where it was", err=True)
        raise SystemExit(INTERRUPTED) from None
    if as_json:
        click.echo(json.dumps(summary.to_dict(), ensure_ascii=False))
    else:
        from backend.cli.progress import show

        show(summary)
    if summary.failed:
        raise SystemExit(SOME_FAILED)


def _check_usage(given: Mapping[str, Any]) -> None:
    """Raise UsageError for what does not go together."""
    source, out, form = given["source"], given["out"], given["form"]
    if (source is None) == (given["project"] is None):
        raise click.UsageError("say what: a SOURCE of photos or tasks, or --project N")
    if given["only_missing"] and given["replacing"]:
        raise click.UsageError("--only-missing leaves older predictions alone, --replace deletes them: choose one")
    if source is None:
        if given["config"] or out or given["prefix"] is not None or form != "label-studio":
            raise click.UsageError("--config, --out, --format and --prefix go with a SOURCE")
        return
    if given["config"] is None or out is None:
        raise click.UsageError("SOURCE needs --config, the labelling config, and --out, the file to write")
    if any(given[name] for name in ("view", "only_missing", "replacing", "unannotated")):
        raise click.UsageError("--filter, --only-missing, --replace and --unannotated go with --project")
    if out.exists() and out.is_dir() != (form == "yolo"):
        kind = "a folder" if form == "yolo" else "a file"
        raise click.UsageError(f"--out is to be {kind} for {form}, and {out} is not")
    if form == "yolo" and source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise click.UsageError("--out lies inside SOURCE: choose a folder beside it")


def _project(
    settings: Settings, hire: Hire, bar: Bar, project: int, view: str, which: Which, unannotated: bool
) -> Summary:
    from backend.bulk.project import ProjectOrder, preannotate_project
    from backend.bulk.workforce import workforce
    from backend.studio import Studio

    studio = Studio(settings.studio_url, settings.studio_token)
    studio.project(project)  # before anything is started
    with workforce(settings, hire, say=bar.say) as force:
        order = ProjectOrder(project, view, which, unannotated)
        return preannotate_project(force, studio, order, bar.progress, bar.idle)


def _files(
    settings: Settings,
    hire: Hire,
    bar: Bar,
    source: Path,
    config: Path,
    out: Path,
    form: str,
    prefix: str | None,
) -> Summary:
    from backend.bulk.files import Order, preannotate_files
    from backend.bulk.sources import read_source
    from backend.bulk.workforce import workforce
    from backend.labelling import parse_config, read_text

    label_config = read_text(config)
    with tempfile.TemporaryDirectory(prefix="boxlift-photos-") as spool:
        found = read_source(source, parse_config(label_config), prefix=prefix, spool=Path(spool).resolve())
        with workforce(settings, hire, roots=found.roots, say=bar.say) as force:
            return preannotate_files(force, Order(found, label_config, out, form), bar.progress, bar.idle)
