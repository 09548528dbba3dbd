"""Real worker processes around a stand-in for the network, whose behaviour the colour of a photo decides.

Usage: stub_worker.py SETTINGS, a JSON object: url, and optionally seconds (an image), version, most (images that
its memory holds at once), studio (Label Studio's address), away (a file: while it is there, no token can be had),
supervised (number of processes that a supervisor looks after; 0: this process is the worker), and what else
`run_worker` takes.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from worker.contract import BULK, INTERACTIVE, Detection, Model
from worker.errors import StudioError
from worker.images import FetchPolicy, Photo, decode

GOOD, RAISES, KILLS, HANGS, SLEEPS = (200, 200, 200), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
JAMS, STALLS, BREAKS = (255, 0, 255), (0, 255, 255), (0, 0, 0)
"""While they are decoded: a hang with the interpreter lock, one without it, an error of no kind of ours."""
CLASSES = ("cat", "dog")


class Stub:
    """Answers one box over the whole photo after `seconds` an image."""

    def __init__(self, seconds: float, version: str, most: int) -> None:
        self.seconds = seconds
        self.most = most
        self.model = Model(version=version, network="stub", classes=CLASSES)

    def localize(
        self,
        images: Sequence[Photo],
        *,
        classes: Sequence[Sequence[int] | None],
        max_boxes: int = 1,
        min_score: float = 0.0,
    ) -> list[list[Detection]]:
        if len(images) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate more than there is")
        colours = [image.image.getpixel((0, 0)) for image in images]
        if KILLS in colours:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGS in colours:
            ctypes.PyDLL(None).sleep(1000)  # in C, with the interpreter lock held
        if RAISES in colours:
            raise ValueError("a poisonous photo")
        time.sleep(self.seconds * len(images) + 3.0 * colours.count(SLEEPS))
        return [[Detection("cat", 0, 0.5, (0.0, 0.0, float(i.width), float(i.height)))] for i in images]


def decode_badly(data: bytes, limits: Any, name: str = "") -> Photo:
    """The real decoder, with its accidents."""
    photo = decode(data, limits, name=name)
    colour = photo.image.getpixel((0, 0))
    if colour == JAMS:
        ctypes.PyDLL(None).sleep(1000)
    if colour == STALLS:
        time.sleep(1000)
    if colour == BREAKS:
        raise RuntimeError("the decoder has a fault")
    return photo


def token(away: str) -> dict[str, str]:
    """As backend.studio.Studio.headers does where the token has to be refreshed."""
    if away and Path(away).exists():
        raise StudioError("Label Studio cannot be reached for a fresh access token")
    return {"Authorization": "Bearer fresh"}


def work(settings: dict[str, Any], reports: Connection | None = None) -> None:
    """Be a worker until told to stop."""
    from worker import jobs
    from worker.main import run_worker

    jobs.decode = decode_badly  # type: ignore[assignment]
    logging.basicConfig(level=settings.pop("log", "WARNING"), format="%(asctime)s %(name)s %(message)s")
    stub = Stub(settings.pop("seconds", 0.001), settings.pop("version", "stub-1"), settings.pop("most", 1000))
    hosts = tuple(settings.pop("hosts", ()))
    roots = tuple(Path(folder) for folder in settings.pop("roots", ()))
    away = settings.pop("away", "")
    policy = FetchPolicy(
        studio_url=settings.pop("studio", ""),
        headers=lambda url: token(away),
        hosts=hosts,
        roots=roots,
        timeout=settings.pop("fetch", 20.0),
    )
    ready = (lambda name: reports.send(("ready", name))) if reports else None
    run_worker(settings.pop("url"), stub, ready=ready, policy=policy, **settings)


def supervise(processes: int, settings: dict[str, Any]) -> None:
    """Look after workers until told to stop, as `boxlift worker` does."""
    from worker.janitor import Janitor
    from worker.ledger import connect
    from worker.supervisor import Supervisor

    logging.basicConfig(level="WARNING", format="%(asctime)s %(name)s %(message)s")
    janitor = Janitor(connect(settings["url"]), "supervisor", (INTERACTIVE, BULK))
    supervisor = Supervisor(work, [dict(settings) for _ in range(processes)], janitor.bury, patience=20)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    supervisor.run()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    number = given.pop("supervised", 0)
    if number:
        supervise(number, given)
    else:
        work(given)
