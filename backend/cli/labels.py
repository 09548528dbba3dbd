"""`boxlift labels`: which of the network's classes each label of a config takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from backend.labelling import LabelMap
    from backend.settings import Settings
    from worker.contract import Model

SHOWN = 6
"""Classes of a label that the table names."""


@click.command()
@click.option(
    "--config",
    "config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the labelling config (Settings → Labeling Interface → Code).",
)
@click.option("--project", type=click.IntRange(1), help="A project instead: its config, and what it was taught.")
@click.option(
    "--classes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a custom network's class names, one a line; ImageNet's if not given.",
)
@click.option(
    "--unmatched",
    type=click.Choice(["skip", "only-label"]),
    help="What becomes of classes without a label; BOXLIFT_UNMATCHED if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole mapping as one JSON object.")
def command(
    config: Path | None, project: int | None, classes: Path | None, unmatched: str | None, as_json: bool
) -> None:
    """Show which classes each label takes, and which labels no class can reach."""
    from backend.labelling import match_labels, parse_config, read_text, with_own_labels
    from backend.labelling.imagenet import taxonomy
    from backend.settings import Settings
    from worker.contract import Model

    settings = Settings.from_env()
    if (config is None) == (project is None) or (project is not None and classes is not None):
        raise click.UsageError("give --config (with or without --classes), or --project")
    if config is not None:
        text = read_text(config)
        names = tuple(read_text(classes).splitlines()) if classes else taxonomy().names
        model = Model("", "", names)
    else:
        assert project is not None  # noqa: S101 - narrows the type
        text, model = _of_project(settings, project)
    labelling, first = parse_config(text), len(model.classes) - model.own
    mapping = match_labels(labelling, model.classes[:first], unmatched or settings.unmatched)
    mapping = with_own_labels(mapping, labelling, model.classes[first:], first)
    if as_json:
        labels = {label: list(found) for label, found in mapping.labels.items()}
        learned = {"learned": list(model.classes[first:])} if project is not None else {}
        told = {"labels": labels, "unreachable": list(mapping.unreachable), **learned}
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        _show(mapping, model.classes, first)
    for problem in labelling.problems:
        click.echo(f"Note: {problem}", err=True)


def _of_project(settings: Settings, project: int) -> tuple[str, Model]:
    """A project's labelling config and the model that predicts for it: the workers', or its own tuning of that."""
    from backend.announced import tuned_model
    from backend.queueing import connect
    from backend.studio import Studio
    from backend.tunings import Tunings
    from worker.errors import QueueError

    studio = Studio(settings.studio_url, settings.studio_token)
    client = connect(settings.redis_url)
    try:
        text = studio.project(project).label_config or ""
        store = Tunings(client)
        model, tuning = store.announced(), store.of(project)
    finally:
        client.close()
        studio.close()
    if model is None:
        raise QueueError("no worker has announced a model yet: start `boxlift worker`")
    return text, tuned_model(tuning, model) if tuning is not None and tuning.base == model.version else model


def _show(mapping: LabelMap, classes: Sequence[str], first: int) -> None:
    table = Table("label", "classes", "for example")
    for label, found in mapping.labels.items():
        some = [f"{index} {classes[index]}" for index in found if index < first]
        learned = ["learned from corrections"] if any(index >= first for index in found) else []
        shown = learned + some[:SHOWN] + ["…"] * (len(some) > SHOWN)
        table.add_row(label, str(len(found)), ", ".join(shown))
    Console().print(table)
    for to_name, target in mapping.rest.items():
        click.echo(f"All other classes on {to_name}: {target.label or 'a box without a label'}")
    for label in mapping.unreachable:
        click.echo(f'No class reaches "{label}": add predicted_values="…" to it, with names of classes')
