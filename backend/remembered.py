"""Something in Redis, known at once: a slow or lost Redis must not hold up an answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from worker.errors import BoxliftError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Remembered(Generic[T]):
    """Remembers what `read` found for `fresh` seconds, then asks again, and waits at most `patience` for that.

    What was known before is the answer while Redis is slow or gone. Safe between threads; at most one of its own
    threads asks Redis at a time. `what` says what it is, in sentences.
    """

    def __init__(self, read: Callable[[], T], what: str, *, fresh: float = 1.0, patience: float = 1.0) -> None:
        self._read = read
        self._what = what
        self._fresh = fresh
        self._patience = patience
        self._lock = threading.Lock()
        self._asked: threading.Event | None = None
        self._at = float("-inf")
        self._value: T | None = None
        self._known = False
        self._problem = ""

    @property
    def known(self) -> bool:
        """Whether anything was ever found, be it that there is nothing."""
        return self._known

    def value(self) -> T | None:
        """As last known; None where nothing ever was: see `known`."""
        with self._lock:
            if time.monotonic() - self._at < self._fresh:
                return self._value
            if self._asked is None:
                self._asked = threading.Event()
                threading.Thread(target=self._ask, args=(self._asked,), name=self._what, daemon=True).start()
            asked = self._asked
        if not asked.wait(self._patience) and not self._known:
            self._problem = "Redis does not answer: check REDIS_URL and the server"
        return self._value

    @property
    def problem(self) -> str:
        """Why the last question had no answer; empty if it had."""
        return self._problem

    def _ask(self, asked: threading.Event) -> None:
        try:
            self._value = self._read()
            self._known = True
            self._problem = ""
        except BoxliftError as error:
            self._problem = str(error)
        except Exception:
            log.exception("%s cannot be read", self._what)
            self._problem = f"{self._what} cannot be read: see the backend's log"
        finally:
            with self._lock:
                self._asked = None
                self._at = time.monotonic()
            asked.set()
