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
def test_whoever_sees_a_worker_finds_all_of_it(server: RedisServer, fleet: Fleet, known: str) -> None:
    """`boxlift preannotate` asks for the model as soon as its worker is alive, and RQ's tools name the worker."""
    seen: list[tuple[int, bool, bool]] = []
    client = Watched.from_url(server.url)

    def look() -> None:
        named = bool(fleet.client.sismember("rq:workers", "rq:worker:one"))
        seen.append((live_workers(fleet.client).count, fleet.jobs.model() is not None, named))

    client.look = look
    registration = Registration(client, "one", ["bulk"], Model(VERSION, "stub", ("cat",)))
    if known == "a new worker":
        registration.enter({})
    else:
        registration.beat(busy=False, about={})
    assert {(model, named) for alive, model, named in seen if alive} == {(True, True)}
    client.close()
