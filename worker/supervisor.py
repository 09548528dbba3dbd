"""Keeps worker processes alive: one that crashes, or is ended by its watchdog, is replaced and its jobs freed.

The supervising process imports no torch and so costs little; each child loads the network itself, since a process
with a GPU, or with torch's threads, cannot be forked.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from worker.errors import BoxliftError

log = logging.getLogger("boxlift.supervisor")

Entry = Callable[[Any, Connection], None]
"""What a child runs: a function that can be imported, given its argument and where to report to. It sends
("ready", worker's name) once it takes jobs, or ("error", message) if it can never."""
Bereaved = Callable[[str, str], None]
"""Called with the name of a worker that died, and how it ended."""

_STEADY = 30.0
"""Seconds of life after which a child's next death counts as its first."""
_UNREADY = 3
"""Deaths before being ready, in a row, after which starting it again is given up."""


@dataclass
class _Child:
    argument: Any
    process: SpawnProcess | None = None
    reports: Connection | None = None
    name: str = ""
    born: float = 0.0
    deaths: int = 0
    again: float = 0.0
    ended: bool = False
    last: list[str] = field(default_factory=list)


class Supervisor:
    """Runs one child for each of `arguments` until `stop`, or until all have ended with status 0."""

    def __init__(self, entry: Entry, arguments: Sequence[Any], bereaved: Bereaved, *, patience: float) -> None:
        self._entry = entry
        self._children = [_Child(argument) for argument in arguments]
        self._bereaved = bereaved
        self._patience = patience
        self._stop = threading.Event()
        self._context = multiprocessing.get_context("spawn")

    def stop(self) -> None:
        """Ask the children to finish what they are doing and end; `run` returns when they have."""
        self._stop.set()

    def run(self) -> None:
        """Until it is over. Raises BoxliftError with the message of a child that can never work."""
        try:
            # The first one alone, until it is ready: what has to be downloaded is downloaded once.
            while not self._stop.is_set() and not all(child.ended for child in self._children):
                ready = any(child.name for child in self._children)
                for child in self._children if ready else self._children[:1]:
                    self._look(child)
                self._stop.wait(0.05)
        finally:
            self._end()

    def _look(self, child: _Child) -> None:
        if child.ended:
            return
        if child.process is None:
            if time.monotonic() >= child.again:
                self._start(child)
            return
        self._hear(child)
        if child.process.exitcode is not None:
            self._buried(child, child.process.exitcode)

    def _start(self, child: _Child) -> None:
        child.reports, theirs = self._context.Pipe(duplex=False)
        child.process = self._context.Process(target=self._entry, args=(child.argument, theirs), daemon=False)
        child.process.start()
        theirs.close()
        child.name, child.born = "", time.monotonic()

    def _hear(self, child: _Child) -> None:
        if child.reports is None:
            return
        try:
            while child.reports.poll():
                kind, text = child.reports.recv()
                if kind == "error":
                    raise BoxliftError(text)
                child.name = text
        except (EOFError, OSError):
            child.reports.close()
            child.reports = None

    def _buried(self, child: _Child, status: int) -> None:
        name, lived = child.name, time.monotonic() - child.born
        child.process = None
        if status == 0:
            child.ended = True
            return
        how = _how(status)
        child.deaths = 1 if name and lived > _STEADY else child.deaths + 1
        if not name and child.deaths >= _UNREADY:
            raise BoxliftError(f"a worker process ended {child.deaths} times while it started ({how}): see its log")
        pause = min(30.0, 0.5 * 2 ** (child.deaths - 1)) if child.deaths > 1 else 0.0
        child.again = time.monotonic() + pause
        log.warning(
            "worker %s %s; starting another in %.1f s",
            name or "(not ready)",
            how,
            pause,
            extra={"event": "worker-died", "worker": name},
        )
        if name:
            self._bereaved(name, how)

    def _end(self) -> None:
        """Let every child finish its batch; who does not within `patience` seconds is killed."""
        alive = [child.process for child in self._children if child.process is not None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + self._patience
        for process in alive:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()


def _how(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}" + (" (its watchdog, or an error)" if status == 1 else "")
