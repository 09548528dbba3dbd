"""Waiting out an outage of Redis: a worker that holds results does not give up because Redis restarts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import redis

log = logging.getLogger("boxlift.worker")
T = TypeVar("T")

AWAY = (redis.ConnectionError, redis.TimeoutError)
"""What redis-py raises while Redis is gone, starts up or is too slow to answer."""


def patiently(
    call: Callable[[], T],
    *,
    stop: threading.Event,
    last: float = 15.0,
    away: Callable[[], None] = lambda: None,
) -> T:
    """The answer of `call`, however long Redis is away; it must be safe to repeat.

    Once `stop` is set it is tried for `last` more seconds; then the error is raised. `away` is called when the
    waiting begins.
    """
    pause, gone, until = 0.1, 0.0, None
    while True:
        try:
            answer = call()
        except AWAY as error:
            moment = time.monotonic()
            if not gone:
                gone = moment
                away()
                log.warning("Redis is away (%s): waiting", error, extra={"event": "redis-away"})
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
