"""Grants wishes for tunings, beside the workers: one child process at a time, with the lowest priority."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import redis

from backend.queueing import connect
from backend.settings import Settings
from backend.tuning.lock import busy
from backend.tunings import Tunings
from worker.errors import BoxliftError

log = logging.getLogger("boxlift.tuner")
_LOOK = 1.0
"""Seconds between two looks for wishes."""
_PATIENCE = 10.0
"""Seconds that a child has to end when it is asked to."""
_BUSY = 75
_LOWEST = 19


class Tuner:
    """Looks for wishes in a thread between `start` and `stop`. Any number of machines may have one: each project is
    tuned by one of them, and a wish whose machine dies is taken up by another."""

    def __init__(self, client: redis.Redis, environment: Mapping[str, str]) -> None:
        """`environment` is that of the child, with the settings that this process was started with."""
        self._client = client
        self._store = Tunings(client)
        self._environment = dict(environment)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tuner", daemon=True)

    def start(self) -> None:
        """Grant wishes from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. A tuning that runs is ended too, and stays wished for."""
        self._stop.set()
        self._thread.join(_PATIENCE + 5)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK):
            try:
                self.round()
            except (redis.RedisError, BoxliftError) as error:
                log.debug("waiting: %s", error)
            except Exception:
                log.exception("a round of tuning failed")
                self._stop.wait(5.0)

    def round(self) -> None:
        """Grant what is wished for now."""
        for project, wish in self._store.wishes().items():
            if self._stop.is_set():
                return
            if not busy(self._client, project):
                self._grant(project, wish)

    def _grant(self, project: int, wish: str) -> None:
        wanted = json.loads(wish)
        arguments = ["tune", "--project", str(project), "--json"] + ["--repredict"] * bool(wanted.get("repredict"))
        log.info("tuning begins", extra={"project": project, "event": "tuning"})
        child = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            os.setpriority(os.PRIO_PROCESS, child.pid, _LOWEST)
        except OSError:
            log.debug("the tuning runs with usual priority")
        out, err = self._wait(child)
        if self._stop.is_set() or child.returncode == _BUSY:
            if child.returncode != _BUSY:
                self._store.note(project, "waiting", "the machine that had begun was stopped")
            return
        self._store.granted(project, wish)
        if child.returncode == 0:
            state = self._store.states().get(project)
            log.info("tuned: %s", state.message if state else out[:300], extra={"project": project})
            return
        reason = _last_line(err) or f"the process ended with status {child.returncode}"
        log.warning("not tuned: %s", reason, extra={"project": project, "event": "tuning-failed"})
        state = self._store.states().get(project)
        if state is None or state.state != "failed":
            self._store.note(project, "failed", reason)

    def _wait(self, child: subprocess.Popen[str]) -> tuple[str, str]:
        while True:
            try:
                return child.communicate(timeout=0.5)
            except subprocess.TimeoutExpired:
                if self._stop.is_set():
                    child.terminate()
                    try:
                        return child.communicate(timeout=_PATIENCE)
                    except subprocess.TimeoutExpired:
                        child.kill()
                        return child.communicate()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ")[:500] if lines else ""


@contextmanager
def tuning(settings: Settings) -> Iterator[None]:
    """Grant wishes for tunings meanwhile, if Label Studio's address and token are known."""
    if not (settings.studio_url and settings.studio_token):
        yield
        return
    own = {"BOXLIFT_NETWORK": settings.network, "BOXLIFT_WEIGHTS": settings.weights}
    tuner = Tuner(connect(settings.redis_url), os.environ | own)
    tuner.start()
    try:
        yield
    finally:
        tuner.stop()
