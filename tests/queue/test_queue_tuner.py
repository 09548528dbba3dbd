"""Wishes are granted by real child processes, by one machine at a time, and never lost by one that stops."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest
import redis
from fleet import until

from backend.demo.processes import free_port
from backend.redis_server import RedisServer
from backend.tuning.lock import BusyError, alone, busy
from backend.tuning.tuner import Tuner
from backend.tunings import Tunings
from worker.contract import MODEL_KEY, TUNING_STATES_KEY, TUNING_WISHES_KEY, Model, tuning_lock_key

pytestmark = pytest.mark.timeout(1200)
SECONDS = 500.0
"""Patience with a child process that begins and ends; a limit for one that hangs, not a claim about speed."""
BASE = Model("boxlift-efficientnet_lite0-1", "efficientnet_lite0", ("cat", "dog"))


@pytest.fixture
def client(server: RedisServer) -> redis.Redis:
    client = redis.Redis.from_url(server.url)
    client.set(MODEL_KEY, json.dumps(BASE.to_dict()))
    return client


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def tuner(server: RedisServer, studio: str) -> Tuner:
    settings = {"REDIS_URL": server.url, "LABEL_STUDIO_URL": studio, "LABEL_STUDIO_API_KEY": "token"}
    return Tuner(redis.Redis.from_url(server.url), os.environ | settings)


def begin_and_stop(server: RedisServer, client: redis.Redis, studio: str) -> None:
    """A tuner that is stopped while it tunes project 7."""
    running = tuner(server, studio)
    running.start()
    until(lambda: busy(client, 7), "a tuning", SECONDS)
    running.stop()


def test_what_cannot_be_done_is_said_and_not_tried_for_ever(server: RedisServer, client: redis.Redis) -> None:
    store = Tunings(client)
    store.wish(7)
    running = tuner(server, f"http://127.0.0.1:{free_port()}")
    running.start()
    try:
        until(lambda: store.states()[7].state == "failed", "the reason", SECONDS)
        until(lambda: not store.wishes(), "the end of the wish", SECONDS)
    finally:
        running.stop()
    assert "cannot be reached" in store.states()[7].message
    assert "token" not in store.states()[7].message
    assert not busy(client, 7)


def test_a_machine_that_stops_leaves_the_wish_to_others(
    server: RedisServer, client: redis.Redis, silent: str
) -> None:
    store = Tunings(client)
    store.wish(7)
    begin_and_stop(server, client, silent)
    assert list(store.wishes()) == [7]
    assert store.states()[7].state == "waiting"
    until(lambda: not busy(client, 7), "its end", SECONDS)


def test_a_project_is_tuned_by_one_at_a_time(server: RedisServer, client: redis.Redis, silent: str) -> None:
    store = Tunings(client)
    with alone(client, 7):
        store.wish(7)
        tuner(server, silent).round()  # would take its time if it began
        assert list(store.wishes()) == [7]
        with pytest.raises(BusyError, match="being tuned already"), alone(client, 7):
            pass
        with alone(client, 8):
            pass
    assert not busy(client, 7)


def test_a_lock_outlives_a_crash_for_a_minute_only(client: redis.Redis) -> None:
    with alone(client, 7):
        assert 0 < client.pttl(tuning_lock_key(7)) <= 60_000


def test_a_wish_that_cannot_be_read_holds_up_no_other(
    server: RedisServer, client: redis.Redis, silent: str
) -> None:
    store = Tunings(client)
    for number, text in enumerate(("no JSON", "[]", "{")):
        client.hset(TUNING_WISHES_KEY, str(number + 1), text)
    client.hset(TUNING_WISHES_KEY, "no project", "{}")
    client.hset(TUNING_STATES_KEY, "9", "no JSON")
    store.wish(7)
    begin_and_stop(server, client, silent)
    assert list(store.wishes()) == [7]
    assert [store.states()[number].state for number in (1, 2, 3)] == ["failed"] * 3


def test_a_child_that_hangs_is_ended_and_others_go_on(
    server: RedisServer, client: redis.Redis, silent: str
) -> None:
    store = Tunings(client)
    store.wish(7)
    running = tuner(server, silent)
    running.silent = 5.0
    running.start()
    try:
        until(lambda: not store.wishes(), "the end of the wish", SECONDS)
        until(lambda: store.states()[7].state == "failed", "the reason", SECONDS)
    finally:
        running.stop()
    assert "nothing was heard" in store.states()[7].message
    until(lambda: not busy(client, 7), "its end", SECONDS)
