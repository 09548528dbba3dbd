"""Is everything there that predictions need: Redis, workers, and a network that they have loaded.

    redis down ─► no workers ─► model loading ─► ready

/health says it beside being alive, /ready says it with its status: 200 where predictions are made, else 503.
"""

from __future__ import annotations

from dataclasses import dataclass

import redis

from backend.queueing import live_workers, talking
from backend.remembered import Remembered
from worker.errors import QueueError
from worker.starting import loading

READY, LOADING, NO_WORKERS, REDIS_DOWN = "ready", "model loading", "no workers", "redis down"
UNKNOWN = "unknown"
"""Redis has not answered yet, and has not failed either."""


@dataclass(frozen=True, slots=True)
class State:
    """One of the words above, and what to do."""

    word: str
    message: str = ""

    @property
    def ready(self) -> bool:
        """Whether predictions are made."""
        return self.word == READY


def look(client: redis.Redis) -> State:
    """The state of this moment. Waits for Redis as long as the client does; raises nothing."""
    try:
        with talking():
            workers = live_workers(client)
            if workers.count:
                return State(READY)
            networks = loading(client)
    except QueueError as error:
        return State(REDIS_DOWN, str(error))
    if networks:
        return State(LOADING, f"workers are loading {', '.join(networks)}: predictions come when they are ready")
    return State(NO_WORKERS, "no worker is running: start `boxlift worker`")


class Health:
    """The state as last seen, about a second ago at most. Never waits longer than `patience`."""

    def __init__(self, client: redis.Redis, *, fresh: float = 1.0, patience: float = 0.2) -> None:
        self._seen = Remembered(lambda: look(client), "the state of the workers", fresh=fresh, patience=patience)

    def state(self) -> State:
        """What `look` saw last."""
        return self._seen.value() or State(UNKNOWN, "Redis has not answered yet: check REDIS_URL and the server")
