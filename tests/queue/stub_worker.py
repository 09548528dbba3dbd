"""A real worker process around a stand-in for the network, whose behaviour the colour of a photo decides.

Usage: stub_worker.py SETTINGS, a JSON object: url, and optionally seconds (an image), version, and what else
`run_worker` takes. Prints a line when it is ready.
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

from worker.contract import Detection, Model
from worker.images import Photo
from worker.main import run_worker

GOOD, RAISES, KILLS, HANGS, SLEEPS = (200, 200, 200), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


class Stub:
    """Answers one box over the whole photo after `seconds` an image."""

    def __init__(self, seconds: float, version: str) -> None:
        self.seconds = seconds
        self.model = Model(version=version, network="stub", classes=("cat", "dog"))

    def localize(
        self,
        images: Sequence[Photo],
        *,
        classes: Sequence[Sequence[int] | None],
        max_boxes: int = 1,
        min_score: float = 0.0,
    ) -> list[list[Detection]]:
        colours = [image.image.getpixel((0, 0)) for image in images]
        if KILLS in colours:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGS in colours:
            ctypes.PyDLL(None).sleep(1000)  # in C, with the interpreter lock held
        if RAISES in colours:
            raise ValueError("a poisonous photo")
        time.sleep(self.seconds * len(images) + sum(c == SLEEPS for c in colours) * 2)
        return [[Detection("cat", 0, 0.5, (0.0, 0.0, float(i.width), float(i.height)))] for i in images]


def main() -> None:
    """Run until told to stop."""
    settings = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    if settings.pop("log", False):
        logging.getLogger().setLevel(logging.INFO)
    stub = Stub(settings.pop("seconds", 0.001), settings.pop("version", "stub-1"))
    print("starting", flush=True)
    run_worker(settings.pop("url"), stub, **settings)


if __name__ == "__main__":
    main()
