"""A Redis server of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import Fleet

from backend.redis_server import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def fleet(server: RedisServer) -> Iterator[Fleet]:
    fleet = Fleet(server)
    yield fleet
    fleet.close()
