"""`boxlift doctor`: is everything there, and if not, what to do."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape

from backend.checks import CHECKS, FAIL, OK, WARN, Check
from backend.settings import Settings

MARKS = {OK: "[green]✓[/]", WARN: "[yellow]![/]", FAIL: "[red]✗[/]"}


@click.command
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object: {ok, checks: [{name, state, text, advice}]}."
)
def command(as_json: bool) -> None:
    """Check Redis, workers, weights, Label Studio and its token; every failing line says what to do.

    Looks at what the environment's settings name. Exit status 1 if a check fails.
    """
    settings = Settings.from_env()
    console = Console(highlight=False, soft_wrap=True)
    done: list[Check] = []
    for check in CHECKS:
        for line in check(settings):
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
