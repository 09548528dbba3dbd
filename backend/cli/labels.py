"""`boxlift labels`: which of the network's classes each label of a config takes."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

SHOWN = 6
"""Classes of a label that the table names."""


@click.command()
@click.option(
    "--config",
    "config",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the labelling config (Settings → Labeling Interface → Code).",
)
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
def command(config: Path, classes: Path | None, unmatched: str | None, as_json: bool) -> None:
    """Show which classes each label takes, and which labels no class can reach."""
    from backend.labelling import match_labels, parse_config
    from backend.labelling.imagenet import taxonomy
    from backend.settings import Settings

    names = tuple(classes.read_text(encoding="utf-8").splitlines()) if classes else taxonomy().names
    labelling = parse_config(config.read_text(encoding="utf-8"))
    mapping = match_labels(labelling, names, unmatched or Settings.from_env().unmatched)
    if as_json:
        labels = {label: list(found) for label, found in mapping.labels.items()}
        click.echo(json.dumps({"labels": labels, "unreachable": list(mapping.unreachable)}, ensure_ascii=False))
    else:
        table = Table("label", "classes", "for example")
        for label, found in mapping.labels.items():
            shown = [f"{index} {names[index]}" for index in found[:SHOWN]] + ["…"] * (len(found) > SHOWN)
            table.add_row(label, str(len(found)), ", ".join(shown))
        Console().print(table)
        for to_name, target in mapping.rest.items():
            click.echo(f"All other classes on {to_name}: {target.label or 'a box without a label'}")
        for label in mapping.unreachable:
            click.echo(f'No class reaches "{label}": add predicted_values="…" to it, with names of classes')
    for problem in labelling.problems:
        click.echo(f"Note: {problem}", err=True)
