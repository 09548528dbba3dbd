"""Waiting out an outage of Redis: a worker that holds results does not give up because Redis restarts."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError

log = logging.getLogger("boxlift.worker")
T = TypeVar("T")

AWAY = (redis.ConnectionError, redis.TimeoutError)
"""What redis-py raises while Redis is gone, starts up or is too slow to answer."""
_UNWILLING = re.compile(r"\b(OOM|MISCONF|READONLY|LOADING|BUSY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN)\b")
"""Codes of errors that pass: memory or disk are full, or the server is another's replica just now. redis-py has
classes for some; from inside scripts the code stands in the middle of a message."""


def away(error: redis.RedisError) -> bool:
    """Whether Redis cannot do now what it can do later: gone, full, or read-only."""
    return isinstance(error, (*AWAY, OutOfMemoryError, ReadOnlyError)) or (
        isinstance(error, redis.ResponseError) and _UNWILLING.search(str(error)) is not None
    )


def patiently(
    call: Callable[[], T],
    *,
    stop: threading.Event,
    last: float = 15.0,
    begin: Callable[[], None] = lambda: None,
) -> T:
    """The answer of `call`, however long Redis is away; it must be safe to repeat.

    Once `stop` is set it is tried for `last` more seconds; then the error is raised. `begin` is called when the
    waiting begins.
    """
    pause, gone, until = 0.1, 0.0, None
    while True:
        try:
            answer = call()
        except redis.RedisError as error:
            if not away(error):
                raise
            moment = time.monotonic()
            if not gone:
                gone = moment
                begin()
                log.warning("Redis is away (%s): waiting", str(error)[:200], extra={"event": "redis-away"})
            if stop.is_set():
                until = until or moment + last
                if moment > until:
                    raise
            time.sleep(pause)
            pause = min(1.0, pause * 2)
        else:
            if gone:
                log.warning("Redis is back after %.1f s", time.monotonic() - gone, extra={"event": "redis-back"})
            return answer
