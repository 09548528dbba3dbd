"""`boxlift serve`: the ML backend that Label Studio connects to."""

from __future__ import annotations

import click


@click.command()
@click.option("--host", help="Address to bind to; BOXLIFT_HOST if not given.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; BOXLIFT_PORT if not given, 0 for a free one.")
@click.option("--deliver/--no-deliver", default=True, show_default=True, help="Push late results to Label Studio.")
def command(host: str | None, port: int | None, deliver: bool) -> None:
    """Run the Label Studio ML backend. Settings come from the environment; it stops on SIGTERM and Ctrl-C."""
    from dataclasses import replace

    from backend.serving import serve
    from backend.settings import Settings

    settings = Settings.from_env()
    if host is not None:
        settings = replace(settings, host=host)
    if port is not None:
        settings = replace(settings, port=port)
    serve(settings, deliver=deliver)
