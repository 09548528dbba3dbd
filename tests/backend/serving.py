"""`boxlift serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading

from backend.redis_server import RedisServer

PATIENCE = 120.0
"""Seconds; a limit for a run that hangs, not a claim about speed."""


class Served:
    """A backend on a free port. Its log is read all the time: a full pipe would stop it."""

    def __init__(self, server: RedisServer, **settings: str) -> None:
        env = os.environ | {"REDIS_URL": server.url, "BOXLIFT_PORT": "0", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "serve"], env=env, stderr=subprocess.PIPE, text=True
        )
        self._lines: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not self._listening.wait(PATIENCE) or not self.url:
            self.process.kill()
            raise AssertionError(self.end(status=None))

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.append(line)
                if "listening on" in line:
                    self._listening.set()
        self._listening.set()  # whether it ever did or not: nothing more will come

    @property
    def url(self) -> str:
        """Its address, out of its own log."""
        found = re.search(r"listening on (http://\S+)", "".join(self._lines))
        return found[1] if found else ""

    def end(self, status: int | None = 0) -> str:
        """Tell it to end, and wait for its exit `status`; its log."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        log = "".join(self._lines)
        assert status is None or self.process.returncode == status, log
        return log
