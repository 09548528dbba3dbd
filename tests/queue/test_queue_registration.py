"""What a worker says of itself, at every moment between two commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from fleet import VERSION, Fleet

from backend.queueing import live_workers
from backend.redis_server import RedisServer
from worker.contract import Model
from worker.lease import Registration


class Watched(redis.Redis):
    """Lets somebody look after each command."""

    look: Callable[[], object]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = super().execute_command(*args, **options)
        self.look()
        return answer


@pytest.mark.parametrize("known", ["a new worker", "one that Redis forgot"])
def test_whoever_sees_a_worker_finds_its_model(server: RedisServer, fleet: Fleet, known: str) -> None:
    """`boxlift preannotate` asks for the model as soon as the worker that it started is alive."""
    seen: list[tuple[int, bool]] = []
    client = Watched.from_url(server.url)
    client.look = lambda: seen.append((live_workers(fleet.client).count, fleet.jobs.model() is not None))
    registration = Registration(client, "one", ["bulk"], Model(VERSION, "stub", ("cat",)))
    if known == "a new worker":
        registration.enter({})
    else:
        registration.beat(busy=False, about={})
    assert (1, True) in seen
    assert (1, False) not in seen
    client.close()
