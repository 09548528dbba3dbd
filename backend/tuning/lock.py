"""One tuning of a project at a time, on whatever machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import redis

from backend.held import held
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
    with ExitStack() as stack:
        with talking():
            ours = stack.enter_context(held(client, tuning_lock_key(project), HELD))
        if ours is None:
            raise BusyError(f"project {project} is being tuned already: see `boxlift status`")
        yield


def busy(client: redis.Redis, project: int) -> bool:
    """Whether somebody tunes the project."""
    with talking():
        return bool(client.exists(tuning_lock_key(project)))
