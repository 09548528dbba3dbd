"""`boxlift retry`: what went wrong back into the queue."""

from __future__ import annotations

import click

from backend.overview import failed_jobs, retry, troubled_jobs
from backend.queueing import connect, talking
from backend.settings import Settings


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--project", type=int, help="All that went wrong in this project.")
@click.option("--all", "everything", is_flag=True, help="All that went wrong.")
def command(jobs: tuple[str, ...], project: int | None, everything: bool) -> None:
    """Try again what failed, and tasks whose images could not be used: the jobs named, those of a project, or all.

    `boxlift status --json` lists them with their reasons.
    """
    if sum((bool(jobs), project is not None, everything)) != 1:
        raise click.UsageError("say which: some JOBs, or --project N, or --all")
    settings = Settings.from_env()
    client = connect(settings.redis_url)
    with talking():
        found = [] if jobs else [*failed_jobs(client, project), *troubled_jobs(client, project)]
        chosen = list(jobs) if jobs else list(dict.fromkeys(found))
    count = retry(client, chosen, settings.job_retries)
    click.echo(f"{count:,} of {len(chosen):,} jobs are queued again")
    if jobs and count < len(chosen):
        raise click.ClickException("with the others nothing is wrong, or they are no longer known")
