"""`boxlift demo`: the whole product on this machine, with a real Label Studio."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from backend.settings import Settings

FOLDER = Path(".boxlift/demo")


@click.command
@click.option("--once", is_flag=True, help="End after the predictions are verified; print one line of JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the line of JSON also when the demo goes on.")
@click.option("--network", default=None, help="Classifier to run [default: BOXLIFT_NETWORK or vgg16].")
@click.option("--weights", type=click.Path(path_type=Path), help="Local state dict for it.")
@click.option("--port", default=8080, show_default=True, help="Port of Label Studio; a free one where it is taken.")
@click.option("--backend-port", default=9090, show_default=True, help="Port of the backend, likewise.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"State and logs [default: {FOLDER}, with --once a temporary folder].",
)
def command(
    once: bool,
    as_json: bool,
    network: str | None,
    weights: Path | None,
    port: int,
    backend_port: int,
    folder: Path | None,
) -> None:
    """Start Redis, a worker, the backend and Label Studio on this machine, and draft boxes for a few photos.

    Runs until Ctrl-C, which stops everything. Weights that cannot be had are replaced by a network whose
    weights come with the packages, with a notice.
    """
    from backend.demo.run import Demo

    settings = Settings.from_env()
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, _interrupt)
    temporary = Path(tempfile.mkdtemp(prefix="boxlift-demo-")) if once and folder is None else None
    place = folder or temporary or FOLDER
    ports = {} if temporary else {"studio_port": port, "backend_port": backend_port}
    chosen_weights = weights or (Path(settings.weights) if settings.weights and network is None else None)
    try:
        demo = Demo(place, console, **ports)
        with demo.stack:
            summary = demo.prepare(network or settings.network, chosen_weights, settings.cache_dir)
            demo.show(summary)
            if once or as_json:
                click.echo(summary.to_json())
            demo.verify(summary)
            if not once:
                demo.show_login()
                demo.serve()
    except KeyboardInterrupt:
        console.print("Stopped.")
        if once:
            shutil.rmtree(temporary or "", ignore_errors=True)
            raise SystemExit(130) from None
    except BaseException:
        console.print(f"Logs are in {place.absolute()}", highlight=False, soft_wrap=True)
        raise
    if temporary:
        shutil.rmtree(temporary, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does, so that nothing is left running."""
    raise KeyboardInterrupt
