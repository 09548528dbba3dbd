"""`boxlift worker`: the processes that look at photos, and the delivery of what they find."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.cli.chosen_network import ChosenNetwork
from backend.settings import Settings
from worker.choices import ENGINES
from worker.errors import BoxliftError, SettingsError, WeightsError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from worker.images import FetchPolicy
    from worker.localizer import Localizer


@dataclass(frozen=True)
class Start:
    """What one worker process is started with; goes to it through a pipe, so that no process list shows secrets."""

    settings: Settings
    device: str
    fallback: str
    burst: bool
    batch: int
    loaders: int
    threads: int = 0
    """Of the processor for the network; 0 for torch's choice, which is all."""


@click.command()
@click.option("--network", help="Classifier, instead of BOXLIFT_NETWORK.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local state dict, instead of BOXLIFT_WEIGHTS.")
@click.option("--classes", type=click.Path(path_type=Path), help="Class names, instead of BOXLIFT_CLASSES.")
@click.option("--engine", type=click.Choice(ENGINES), help="Instead of BOXLIFT_ENGINE.")
@click.option(
    "--fallback-network",
    default="",
    help="Classifier to take, with a notice, if the other's weights cannot be had.",
)
@click.option("--device", help="cpu, cuda:0, … or auto; several, separated by commas, for the processes in turn.")
@click.option("--processes", type=click.IntRange(1, 256), help="Worker processes.  [default: one a device]")
@click.option("--batch", type=click.IntRange(1, 1024), default=8, show_default=True, help="Most images in a batch.")
@click.option(
    "--loaders",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Fetching threads of each, and as many again for urgent tasks.",
)
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option("--delivery/--no-delivery", default=True, help="Push late results to Label Studio from here.")
@click.option("--tuner/--no-tuner", default=True, help="Learn from corrections here when somebody asks for it.")
def command(
    network: str | None,
    weights: Path | None,
    classes: Path | None,
    engine: str | None,
    fallback_network: str,
    device: str | None,
    processes: int | None,
    batch: int,
    loaders: int,
    burst: bool,
    delivery: bool,
    tuner: bool,
) -> None:
    """Take tasks from the queue, look at their photos, and deliver the boxes.

    Ends after the current batch on SIGTERM or Ctrl-C. A process that crashes or hangs is replaced.
    """
    from backend.logs import configure
    from worker.supervisor import Supervisor

    settings = Settings.from_env()
    settings = ChosenNetwork.of(settings, network, weights, classes).instead(settings)
    settings = replace(settings, engine=engine or settings.engine)
    configure(settings.log_level, settings.log_format, settings.secrets())
    places = devices(device or settings.device, processes)
    threads = _threads(len(places))
    children = [Start(settings, place, fallback_network, burst, batch, loaders, threads) for place in places]
    supervisor = Supervisor(run_child, children, _undertaker(settings), patience=settings.job_timeout + 10.0)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    signal.signal(signal.SIGINT, lambda *_: supervisor.stop())
    with contextlib.ExitStack() as helpers:
        # What reads labelling configs takes a second to import, which workers without either need not spend.
        if delivery:
            from backend.delivery import delivering

            helpers.enter_context(delivering(settings))
        if tuner:
            from backend.tuning.tuner import tuning

            helpers.enter_context(tuning(replace(settings, device=places[0])))
        supervisor.run()


def devices(named: str, processes: int | None = None) -> list[str]:
    """The device of each worker process: those `named`, separated by commas, in turn; each once unless `processes`
    says how many there are. Raises SettingsError for fewer processes than devices, or no device at all."""
    found = [part.strip() for part in named.split(",") if part.strip()]
    if not found:
        raise SettingsError(f"no device in {named!r}: name one (BOXLIFT_DEVICE, --device), or auto")
    if processes is not None and processes < len(found):
        raise SettingsError(
            f"{processes} of --processes would leave some of {', '.join(found)} idle: leave it out for one "
            "a device, or name fewer devices"
        )
    return [found[number % len(found)] for number in range(processes or len(found))]


def _threads(processes: int) -> int:
    """Threads for each of several worker processes, so that they do not wait for each other's."""
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return 0
    return max(1, (os.cpu_count() or 1) // processes)


def run_child(start: Start, reports: Connection) -> None:
    """One worker process: load the network, take jobs. Runs in a process of its own."""
    from backend.logs import configure
    from worker.images import ImageLimits
    from worker.main import run_worker
    from worker.starting import starting

    settings = start.settings
    configure(settings.log_level, settings.log_format, settings.secrets())
    try:
        with starting(settings.redis_url, settings.network):
            localizer = load(start)
            policy = fetch_policy(settings)  # may import for a second: still starting
    except BoxliftError as error:
        reports.send(("error", str(error)))
        return
    run_worker(
        settings.redis_url,
        localizer,
        policy=policy,
        limits=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
        batch=start.batch,
        loaders=start.loaders,
        burst=start.burst,
        about={"device": start.device},
        ready=lambda name: reports.send(("ready", name)),
    )


def load(start: Start) -> Localizer:
    """The localizer to work with. Raises NetworkError where there is none, fallback included."""
    from worker.attribution import parse_precision
    from worker.localizer import Localizer
    from worker.networks import load_network

    if start.threads:
        import torch

        torch.set_num_threads(start.threads)
    settings, log = start.settings, logging.getLogger("boxlift.worker")
    chosen = ChosenNetwork.of(settings)
    try:
        network = load_network(
            chosen.name,
            weights=chosen.weights,
            classes=chosen.classes,
            cache_dir=settings.cache_dir,
            device=start.device,
        )
    except WeightsError as error:
        if not start.fallback or start.fallback == settings.network:
            raise
        log.warning("%s", error)
        log.warning("NOTICE: %s runs instead of %s", start.fallback, settings.network, extra={"event": "fallback"})
        network = load_network(start.fallback, cache_dir=settings.cache_dir, device=start.device)
    precision = parse_precision(settings.precision)
    return Localizer(network, batch=start.batch, engine=settings.engine, precision=precision)


def fetch_policy(settings: Settings) -> FetchPolicy:
    """Where the settings allow images to come from. Raises StudioError for an address that is none."""
    from worker.images import FetchPolicy

    headers = None
    if settings.studio_url and settings.studio_token:
        from backend.studio import Studio  # takes a second to import

        studio = Studio(settings.studio_url, settings.studio_token)
        headers = lambda url: studio.headers()  # noqa: E731
    return FetchPolicy(
        studio_url=settings.studio_url,
        headers=headers,
        hosts=settings.image_hosts,
        roots=settings.image_roots,
        max_bytes=settings.max_image_bytes,
        timeout=settings.fetch_timeout,
    )


def _undertaker(settings: Settings) -> Callable[[str, str], None]:
    """Frees the jobs of a dead worker at once. Should Redis be away just then, their leases end by themselves."""
    import redis

    from worker.contract import BULK, INTERACTIVE
    from worker.janitor import Janitor
    from worker.ledger import connect

    janitor = Janitor(connect(settings.redis_url), "supervisor", (INTERACTIVE, BULK))

    def bury(worker: str, how: str) -> None:
        with contextlib.suppress(redis.RedisError):
            janitor.bury(worker, how)

    return bury
