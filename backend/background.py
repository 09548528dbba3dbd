"""Work that goes on after the answer: Label Studio gives a webhook one second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """One thread that does one thing after the other; what does not fit into its backlog is refused."""

    def __init__(self, backlog: int = 256) -> None:
        self._backlog = backlog
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._room = threading.BoundedSemaphore(backlog)

    def later(self, call: Callable[..., object], *arguments: Any) -> bool:
        """Do this after everything that waits already. False, and a line in the log, if there is no room."""
        if not self._room.acquire(blocking=False):
            log.warning("refused: %d things wait already", self._backlog)
            return False
        self._pool.submit(self._do, call, arguments)
        return True

    def close(self) -> None:
        """Finish what was accepted, and accept no more."""
        self._pool.shutdown(wait=True)

    def _do(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        try:
            call(*arguments)
        except Exception:
            log.exception("something in the background failed")
        finally:
            self._room.release()
