"""One tuning of a project at a time, on whatever machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis
from redis.exceptions import LockError

from backend.queueing import talking
from worker.contract import tuning_lock_key
from worker.errors import QueueError

HELD = 60.0
"""Seconds that a lock outlives the last sign of life of whoever holds it."""


class BusyError(QueueError):
    """Somebody tunes this project already."""


@contextmanager
def alone(client: redis.Redis, project: int) -> Iterator[None]:
    """Nobody else tunes the project meanwhile. Raises BusyError where somebody does already."""
    lock = client.lock(tuning_lock_key(project), timeout=HELD, thread_local=False)
    with talking():
        if not lock.acquire(blocking=False):
            raise BusyError(f"project {project} is being tuned already: see `boxlift status`")
    end = threading.Event()

    def prolong() -> None:
        while not end.wait(HELD / 4):
            with suppress(redis.RedisError, LockError):
                lock.reacquire()

    thread = threading.Thread(target=prolong, name="tuning-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        with suppress(redis.RedisError, LockError):
            lock.release()


def busy(client: redis.Redis, project: int) -> bool:
    """Whether somebody tunes the project."""
    with talking():
        return bool(client.exists(tuning_lock_key(project)))
