"""`boxlift bench`: measurements, each a subcommand that is imported only when it is called."""

from __future__ import annotations

import click

from backend.cli.lazy import LazyGroup

MEASUREMENTS = {
    "engine": "the maps against captum, plain forward passes and a detector; peak memory",
    "interactive": "how long a person waits for a smart tool",
    "queue": "enqueueing, the queue's own cost, and how long an urgent task waits",
    "preannotate": "a folder through the queue, beside the network alone",
}


class _Bench(LazyGroup):
    summaries = MEASUREMENTS
    module = "backend.cli.bench_%s"


@click.group(cls=_Bench)
def command() -> None:
    """Measure speed on this machine."""
