"""Grants wishes for tunings, beside the workers: one child process at a time, with the lowest priority."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping

import redis

from backend.queueing import connect
from backend.settings import Settings
from backend.tuning import BUSY, ELSEWHERE
from backend.tuning.lock import busy
from backend.tunings import Tunings
from worker.errors import BoxliftError

log = logging.getLogger("boxlift.tuner")
_LOOK = 1.0
"""Seconds between two looks for wishes."""
_PATIENCE = 10.0
"""Seconds that a child has to end when it is asked to."""
_OTHERS = 600.0
"""Seconds that a wish is left to other machines where this one cannot have the workers' network."""
_SILENT = 1800.0
"""Seconds without a sign of life after which a child is ended. Each step of a tuning says that it begins."""
_LOW = 10
"""Priority of a child: workers go first, and still it gets something of a machine that is always busy."""


class Tuner:
    """Looks for wishes in a thread between `start` and `stop`. Any number of machines may have one: each project is
    tuned by one of them, and a wish whose machine dies is taken up by another."""

    def __init__(self, client: redis.Redis, environment: Mapping[str, str]) -> None:
        """`environment` is that of the child, with the settings that this process was started with."""
        self.silent = _SILENT
        self._client = client
        self._store = Tunings(client)
        self._environment = dict(environment)
        self._left: dict[str, float] = {}
        """Wishes that this machine cannot grant → when others have had their chance."""
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
            if not busy(self._client, project) and time.monotonic() >= self._left.get(wish, 0.0):
                self._grant(project, wish)

    def _grant(self, project: int, wish: str) -> None:
        repredict = _repredict(wish)
        if repredict is None:
            self._store.granted(project, wish)
            self._store.note(project, "failed", "the wish cannot be read: ask for it again")
            return
        arguments = ["tune", "--project", str(project), "--json"] + ["--repredict"] * repredict
        log.info("tuning begins", extra={"project": project, "event": "tuning"})
        child = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is ours; in a session of its own it would share the machine with the workers
        )
        try:
            os.setpriority(os.PRIO_PROCESS, child.pid, _LOW)
        except OSError:
            log.debug("the tuning runs with usual priority")
        out, err, silent = self._wait(child, project)
        if self._stop.is_set() or child.returncode == BUSY:
            if child.returncode != BUSY:
                self._store.note(project, "waiting", "the machine that had begun was stopped")
            return
        reason = _last_line(err) or f"the process ended with status {child.returncode}"
        if silent:
            reason = f"nothing was heard of it for {self.silent / 60:.0f} minutes: it was ended, ask for it again"
        if child.returncode == ELSEWHERE and wish not in self._left:
            self._left[wish] = time.monotonic() + _OTHERS
            log.warning("left to other machines: %s", reason, extra={"project": project})
            self._store.note(project, "waiting", f"for a machine that can: {reason}")
            return
        self._left.pop(wish, None)
        self._store.granted(project, wish)
        if child.returncode == 0:
            state = self._store.states().get(project)
            log.info("tuned: %s", state.message if state else out[:300], extra={"project": project})
            return
        log.warning("not tuned: %s", reason, extra={"project": project, "event": "tuning-failed"})
        state = self._store.states().get(project)
        if silent or state is None or state.state != "failed":
            self._store.note(project, "failed", reason)

    def _wait(self, child: subprocess.Popen[str], project: int) -> tuple[str, str, bool]:
        """What it printed, and whether it was ended because it hung."""
        heard, last = time.monotonic(), 0.0
        while True:
            try:
                return *child.communicate(timeout=0.5), False
            except subprocess.TimeoutExpired:
                at = self._sign_of_life(project)
                if at != last:
                    heard, last = time.monotonic(), at
                silent = time.monotonic() - heard > self.silent
                if self._stop.is_set() or silent:
                    return *_ended(child), silent

    def _sign_of_life(self, project: int) -> float:
        with contextlib.suppress(redis.RedisError, BoxliftError):
            state = self._store.states().get(project)
            return state.at if state else 0.0
        return 0.0


def _ended(child: subprocess.Popen[str]) -> tuple[str, str]:
    child.terminate()
    try:
        return child.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()


def _repredict(wish: str) -> bool | None:
    """Whether to predict again; None for what is no wish."""
    try:
        wanted = json.loads(wish)
    except ValueError:
        return None
    return bool(wanted.get("repredict")) if isinstance(wanted, dict) else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ")[:500] if lines else ""


@contextlib.contextmanager
def tuning(settings: Settings) -> Iterator[None]:
    """Grant wishes for tunings meanwhile, if Label Studio's address and token are known."""
    if not (settings.studio_url and settings.studio_token):
        yield
        return
    own = {
        "BOXLIFT_NETWORK": settings.network,
        "BOXLIFT_WEIGHTS": settings.weights,
        "BOXLIFT_CLASSES": settings.classes,
        "BOXLIFT_ENGINE": settings.engine,
        "BOXLIFT_DEVICE": settings.device,
    }
    tuner = Tuner(connect(settings.redis_url), os.environ | own)
    tuner.start()
    try:
        yield
    finally:
        tuner.stop()
