"""`boxlift cancel`: jobs out of the queue."""

from __future__ import annotations

import click

from backend.overview import cancel
from backend.queueing import connect
from backend.settings import Settings


@click.command()
@click.option("--project", type=int, required=True, help="The project whose jobs are cancelled.")
@click.option("--task", "tasks", type=int, multiple=True, help="Only this task; may be given several times.")
def command(project: int, tasks: tuple[int, ...]) -> None:
    """Take a project's tasks out of the queues, with results that are not in Label Studio yet.

    What is stored in Label Studio stays there. A task that is opened afterwards is asked for anew.
    """
    count = cancel(connect(Settings.from_env().redis_url), project, tasks or None)
    click.echo(f"{count:,} jobs of project {project} cancelled")
