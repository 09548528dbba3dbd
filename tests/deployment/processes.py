"""Boxlift's own processes as they are deployed: commands with an environment, and nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from backend.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
"""Seconds after which something that should happen counts as never happening: not a claim about speed."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something; fails, naming it, where it does not happen."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


class Deployment:
    """A Redis, and the processes on it."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, **settings: str) -> tuple[subprocess.Popen[bytes], Path]:
        """A `boxlift` command; its log as a file."""
        log = self.folder / f"{command[0]}-{len(self.processes)}.log"
        env = os.environ | {"REDIS_URL": self.server.url, "BOXLIFT_PORT": "0"} | settings
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", *command], cwd=ROOT, env=env, stderr=output
            )
        self.processes.append(process)
        return process, log

    def backend(self, **settings: str) -> tuple[subprocess.Popen[bytes], str, Path]:
        """A backend that listens: its process, address and log."""
        process, log = self.start("serve", **settings)
        until(lambda: "listening on" in log.read_text() or process.poll() is not None, "the backend")
        found = re.search(r"listening on (http://\S+)", log.read_text())
        assert found, log.read_text()
        return process, found[1], log

    def worker(self, **settings: str) -> subprocess.Popen[bytes]:
        """A worker on its way, with the network that needs no download."""
        return self.start(
            "worker", **({"BOXLIFT_NETWORK": "efficientnet_lite0", "BOXLIFT_DEVICE": "cpu"} | settings)
        )[0]

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """As an orchestrator does."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@contextlib.contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    """A deployment that ends with the test."""
    with RedisServer() as server:
        made = Deployment(server, folder)
        try:
            yield made
        finally:
            for process in made.processes:
                process.terminate()
            for process in made.processes:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def ask(url: str, path: str, **options: object) -> httpx.Response:
    """GET, past any proxy."""
    return httpx.get(url + path, timeout=PATIENCE, trust_env=False, **options)  # type: ignore[arg-type]
