"""`boxlift bench`: measurements, each a subcommand that is imported only when it is called."""

from __future__ import annotations

import importlib

import click

MEASUREMENTS = {
    "engine": "the maps against captum, plain forward passes and a detector; peak memory",
    "queue": "enqueueing, the queue's own cost, and how long an urgent task waits",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MEASUREMENTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MEASUREMENTS:
            return None
        command = importlib.import_module(f"backend.cli.bench_{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - narrows the type
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(MEASUREMENTS.items()))


@click.group(cls=_LazyGroup)
def command() -> None:
    """Measure speed on this machine."""
