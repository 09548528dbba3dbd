"""`boxlift connect`: connect a Label Studio project to this backend, or repair its connection."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--project", type=click.IntRange(1), required=True, help="Number of the project, as in its address.")
@click.option("--url", help="The backend's address as Label Studio reaches it; http://BOXLIFT_HOST:BOXLIFT_PORT.")
@click.option("--interactive/--no-interactive", default=True, show_default=True, help="Serve smart tools too.")
@click.option(
    "--uncertainty/--no-uncertainty",
    default=None,
    help="Show people the tasks with the lowest score first; without either, unless the project has an order set.",
)
@click.option(
    "--old",
    type=click.Choice(["keep", "replace"]),
    default="keep",
    show_default=True,
    help="Predictions of older versions of Boxlift's: keep or delete them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    project: int, url: str | None, interactive: bool, uncertainty: bool | None, old: str, as_json: bool
) -> None:
    """Make a project ask this backend, and show its scores. Safe to repeat, e.g. after a new model version."""
    from backend.addresses import own_address
    from backend.connecting import Wish, announced_version, connect
    from backend.review.queue import doubtful_first
    from backend.settings import Settings
    from backend.studio import Studio

    settings = Settings.from_env()
    address = (url or own_address(settings)).rstrip("/")
    studio = Studio(settings.studio_url, settings.studio_token)
    wish = Wish(
        url=address,
        basic_auth=settings.basic_auth,
        webhook_secret=settings.webhook_secret,
        interactive=interactive,
        uncertainty=bool(uncertainty),
        replace=old == "replace",
    )
    try:
        config = studio.project(project).label_config or ""
        report = connect(studio, project, announced_version(address, project, config, settings.basic_auth), wish)
        report.done += doubtful_first(studio, project, stream=uncertainty is None)
    finally:
        studio.close()
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    click.echo(f"Project {project} of {studio.url} asks {address} ({report.version})")
    for line in report.done:
        click.echo(f"  {line}")
    for line in report.warnings:
        click.echo(f"Warning: {line}", err=True)
