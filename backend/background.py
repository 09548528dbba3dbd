"""Work that goes on after the answer: Label Studio gives a webhook one second, and never repeats it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before something is tried again: doubled from the first to the longest."""


class NotNowError(Exception):
    """What was tried cannot be done at present, but later: it is tried again, and what comes after it waits."""


class Background:
    """One thread that does one thing after the other; what does not fit into its backlog is refused."""

    def __init__(self, backlog: int = 256, pause: float | None = None) -> None:
        self._backlog = backlog
        self._pause = FIRST_PAUSE if pause is None else pause
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._room = threading.BoundedSemaphore(backlog)
        self._closing = threading.Event()

    def later(self, call: Callable[..., object], *arguments: Any) -> bool:
        """Do this after everything that waits already. False, and a line in the log, if there is no room."""
        if not self._room.acquire(blocking=False):
            log.warning("refused: %d things wait already", self._backlog)
            return False
        try:
            self._pool.submit(self._do, call, arguments)
        except RuntimeError:  # closed
            self._room.release()
            return False
        return True

    def close(self) -> None:
        """Finish what was accepted, each thing tried once more at most, and accept no more."""
        self._closing.set()
        self._pool.shutdown(wait=True)

    def _do(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        pause = self._pause
        try:
            while True:
                last = self._closing.is_set()
                try:
                    call(*arguments)
                except NotNowError as error:
                    if last:
                        log.warning("given up at the end: %s", error)
                        return
                    log.info("tried again in %.0f s: %s", pause, error)
                    self._closing.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    return
        except Exception:
            log.exception("something in the background failed")
        finally:
            self._room.release()
