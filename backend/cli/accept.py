"""`boxlift accept`: make annotations of confident predictions, where nobody has worked."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--project", type=click.IntRange(1), required=True, help="Number of the project, as in its address.")
@click.option("--score", type=click.FloatRange(0.0, 1.0), required=True, help="Least score of what is accepted.")
@click.option("--version", "version", help="Model version; the project's own, if it is one of Boxlift's.")
@click.option("--yes", is_flag=True, help="Do it. Without this, only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(project: int, score: float, version: str | None, yes: bool, as_json: bool) -> None:
    """Turn predictions that score at least SCORE into annotations of the token's user.

    Tasks that somebody has annotated, skipped or begun are never touched. Nothing else here makes annotations.
    """
    from backend.accepting import accept
    from backend.connecting import OURS
    from backend.settings import Settings
    from backend.studio import Studio

    settings = Settings.from_env()
    studio = Studio(settings.studio_url, settings.studio_token)
    chosen = version or str(studio.project(project).model_version or "")
    if not version and not chosen.startswith(OURS):
        shown = f"shows scores of {chosen!r}" if chosen else "has no model version"
        raise click.UsageError(f"project {project} {shown}, which is none of Boxlift's: name one with --version")
    outcome = accept(studio, project, chosen, score, write=yes)
    if as_json:
        click.echo(json.dumps(asdict(outcome) | {"version": chosen, "written": yes}))
        return
    click.echo(
        f"{outcome.accepted} predictions of {chosen} {'accepted' if yes else 'would be accepted (add --yes)'}"
    )
    click.echo(f"{outcome.untouched} left alone: somebody has worked on these tasks")
    click.echo(f"{outcome.doubtful} left alone: under {score:g}, or without boxes")
