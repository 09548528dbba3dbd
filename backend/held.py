"""Locks in Redis that are held for as long as their holder lives, and end soon after it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import redis
from redis.exceptions import LockError

log = logging.getLogger(__name__)


@contextmanager
def held(client: redis.Redis, key: str, seconds: float) -> Iterator[Callable[[], bool] | None]:
    """A call that prolongs the lock and says whether it is still ours; None where somebody else has it.

    A thread prolongs it besides; it ends `seconds` after the last time, or with the block. Raises redis-py's errors
    where it cannot be asked for, and so does the call.
    """
    lock = client.lock(key, timeout=seconds, thread_local=False)
    if not lock.acquire(blocking=False):
        yield None
        return
    end = threading.Event()

    def ours() -> bool:
        try:
            return bool(lock.reacquire())
        except LockError:
            return False

    def prolong() -> None:
        while not end.wait(seconds / 4):
            try:
                ours()
            except redis.RedisError as error:
                log.debug("%s not prolonged: %s", key, type(error).__name__)

    thread = threading.Thread(target=prolong, name="lock", daemon=True)
    thread.start()
    try:
        yield ours
    finally:
        end.set()
        thread.join()
        with suppress(redis.RedisError):  # it ends by itself
            lock.release()
