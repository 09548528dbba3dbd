"""`boxlift doctor`: is everything there, and if not, what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape

from backend.checks import FAIL, OK, WARN, Check, check_redis, check_versions, check_weights
from backend.settings import Settings

MARKS = {OK: "[green]✓[/]", WARN: "[yellow]![/]", FAIL: "[red]✗[/]"}


@click.command
@click.option(
    "--project",
    "projects",
    type=click.IntRange(1),
    multiple=True,
    help="Number of a project to look at; may be repeated. All that are connected if not given.",
)
@click.option("--url", default="", help="The backend's address as Label Studio reaches it.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object: {ok, checks: [{name, state, text, advice}]}."
)
def command(projects: tuple[int, ...], url: str, as_json: bool) -> None:
    """Check Redis, workers, weights, Label Studio, its token and projects; every failing line says what to do.

    Looks at what the environment's settings name, and changes nothing. Exit status 1 if a check fails.
    """
    settings = Settings.from_env()
    console = Console(highlight=False, soft_wrap=True)
    done: list[Check] = []
    for line in _checks(settings, projects, url):
        done.append(line)
        if not as_json:
            console.print(f"{MARKS[line.state]} {line.name}: {escape(line.text)}")
            if line.advice:
                console.print(f"    → {escape(line.advice)}")
    failed = any(line.state == FAIL for line in done)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(line) for line in done]}))
    if failed:
        raise SystemExit(1)


def _checks(settings: Settings, projects: tuple[int, ...], url: str) -> Iterator[Check]:
    from backend.project_checks import check_projects
    from backend.studio_checks import check_backend, check_studio

    for check in (check_versions, check_redis, check_weights):
        yield from check(settings)
    studio = list(check_studio(settings))
    yield from studio
    yield from check_backend(settings)
    if all(line.state != FAIL for line in studio):
        yield from check_projects(settings, projects, url)
