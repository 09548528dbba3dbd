"""`boxlift retry`: failed jobs back into the queue."""

from __future__ import annotations

import click

from backend.overview import failed_jobs, retry
from backend.queueing import connect, talking
from backend.settings import Settings


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--project", type=int, help="All failed jobs of this project.")
@click.option("--all", "everything", is_flag=True, help="All failed jobs.")
def command(jobs: tuple[str, ...], project: int | None, everything: bool) -> None:
    """Try failed jobs again: those named, those of a project, or all.

    `boxlift status --json` lists them with their reasons.
    """
    if sum((bool(jobs), project is not None, everything)) != 1:
        raise click.UsageError("say which: some JOBs, or --project N, or --all")
    settings = Settings.from_env()
    client = connect(settings.redis_url)
    with talking():
        chosen = list(jobs) if jobs else list(failed_jobs(client, project))
    count = retry(client, chosen, settings.job_retries)
    click.echo(f"{count:,} of {len(chosen):,} jobs are queued again")
    if jobs and count < len(chosen):
        raise click.ClickException("the others have not failed, or are no longer known")
