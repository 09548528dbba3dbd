"""The model that workers announced, known at once: a slow or lost Redis must not hold up /setup."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from worker.contract import Model
from worker.errors import BoxliftError, QueueError

log = logging.getLogger(__name__)


class Announced:
    """Remembers the announced model for `fresh` seconds, then asks again, and waits at most `patience` for that.

    What was known before is the answer while Redis is slow or gone. Safe between threads; at most one of its own
    threads asks Redis at a time.
    """

    def __init__(self, read: Callable[[], Model | None], *, fresh: float = 1.0, patience: float = 1.0) -> None:
        self._read = read
        self._fresh = fresh
        self._patience = patience
        self._lock = threading.Lock()
        self._asked: threading.Event | None = None
        self._at = float("-inf")
        self._model: Model | None = None
        self._problem = ""

    def model(self) -> Model:
        """The model as last known. Raises QueueError, with what to do, where none ever was."""
        self._refresh()
        if self._model is None:
            raise QueueError(self._problem or "no worker has announced a model yet: start `boxlift worker`")
        return self._model

    @property
    def problem(self) -> str:
        """Why the last question had no answer; empty if it had."""
        return self._problem

    def _refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._at < self._fresh:
                return
            if self._asked is None:
                self._asked = threading.Event()
                threading.Thread(target=self._ask, args=(self._asked,), name="announced", daemon=True).start()
            asked = self._asked
        if not asked.wait(self._patience) and self._model is None:
            self._problem = "Redis does not answer: check REDIS_URL and the server"

    def _ask(self, asked: threading.Event) -> None:
        try:
            model = self._read()
            if model is not None:
                self._model = model
            self._problem = ""
        except BoxliftError as error:
            self._problem = str(error)
        except Exception:
            log.exception("the announced model cannot be read")
            self._problem = "the announced model cannot be read: see the backend's log"
        finally:
            with self._lock:
                self._asked = None
                self._at = time.monotonic()
            asked.set()
