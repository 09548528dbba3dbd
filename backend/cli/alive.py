"""`boxlift alive`: does this machine's worker give signs of life. For the health checks of containers."""

from __future__ import annotations

import socket

import click


@click.command()
@click.option("--host", default=socket.gethostname, show_default="this machine", help="Host of the worker.")
def command(host: str) -> None:
    """Exit with 0 if a worker of this machine takes tasks or is loading its network, else with 1."""
    from backend.queueing import connect, live_workers, talking
    from backend.settings import Settings
    from worker.errors import QueueError
    from worker.starting import loading

    with connect(Settings.from_env().redis_url) as client, talking():
        names = [name for name, about in live_workers(client).about.items() if about.get("host") == host]
        networks = loading(client, host)
    if not names and not networks:
        raise QueueError(f"no worker of {host} gives signs of life: see its log")
    click.echo(", ".join(names) or f"loading {', '.join(networks)}")
