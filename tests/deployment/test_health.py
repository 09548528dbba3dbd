"""/health and /ready tell "Redis down", "no workers" and "model loading" apart: with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from backend.health import LOADING, NO_WORKERS, READY, REDIS_DOWN
from worker.contract import STARTING_KEY
from worker.starting import LONGEST, loading, starting

from .processes import ask, deployment, until


def test_the_states_of_a_deployment(tmp_path: Path) -> None:
    with deployment(tmp_path) as made:
        _, url, log = made.backend()

        def seen() -> str:
            ready, health = ask(url, "/ready"), ask(url, "/health")
            assert health.status_code == 200
            assert health.json()["status"] == "UP"
            assert ready.status_code == (200 if ready.json()["state"] == READY else 503)
            words.add(ready.json()["state"])
            messages[ready.json()["state"]] = ready.json()["message"]
            assert health.json()["state"] in words | {ready.json()["state"], ask(url, "/ready").json()["state"]}
            return str(ready.json()["state"])

        words: set[str] = set()
        messages: dict[str, str] = {}
        until(lambda: seen() == NO_WORKERS, "no workers")
        worker = made.worker()
        until(lambda: seen() == LOADING, "a worker that loads its network")
        until(lambda: seen() == READY, "a worker")
        made.server._end()
        until(lambda: seen() == REDIS_DOWN, "Redis to be missed")
        made.server.start()
        until(lambda: seen() == READY, "the worker to come back")
        made.stop(worker)
        until(lambda: seen() == NO_WORKERS, "the worker to be missed")
        assert "efficientnet_lite0" in messages[LOADING]
        assert "boxlift worker" in messages[NO_WORKERS]
        assert "REDIS_URL" in messages[REDIS_DOWN]
        assert made.server._password not in log.read_text()


def test_a_worker_that_dies_while_it_starts_is_forgotten(tmp_path: Path) -> None:
    with deployment(tmp_path) as made, redis.Redis.from_url(made.server.url) as client:
        with starting(made.server.url, "vgg16"):
            until(lambda: loading(client) == ["vgg16"], "the sign")
        assert loading(client) == []
        seconds, _ = client.time()
        client.hset(STARTING_KEY, "dead-1", f"{seconds - LONGEST - 1} vgg16")
        assert loading(client) == []


def test_a_redis_that_is_away_is_no_reason_not_to_start(tmp_path: Path) -> None:
    with starting("redis://127.0.0.1:1/0", "vgg16"):
        pass
    with pytest.raises(redis.ConnectionError):
        loading(redis.Redis.from_url("redis://127.0.0.1:1/0"))
