"""Workers that are on their way: a network is being downloaded or loaded, and jobs are not taken yet."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from worker.contract import STARTING_KEY
from worker.ledger import connect

_BEAT = 10.0
LONGEST = 30.0
"""Seconds after its last sign that a worker which starts counts as gone."""
log = logging.getLogger(__name__)


@contextmanager
def starting(url: str, network: str) -> Iterator[None]:
    """Tell Redis, while this lasts, that a worker loads `network`. A Redis that is away is no reason to wait."""
    name = f"{socket.gethostname()}-{os.getpid()}"
    done = threading.Event()
    client = connect(url)

    def tell() -> None:
        while True:
            try:
                seconds, _ = client.time()
                client.hset(STARTING_KEY, name, f"{seconds} {network}")
                client.expire(STARTING_KEY, round(2 * LONGEST))
            except redis.RedisError as error:
                log.debug("not told: %s", type(error).__name__)
            if done.wait(_BEAT):
                return

    thread = threading.Thread(target=tell, name="starting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        try:
            client.hdel(STARTING_KEY, name)
        except redis.RedisError as error:
            log.debug("not told: %s", type(error).__name__)
        client.close()


def loading(client: redis.Redis, host: str = "") -> list[str]:
    """The networks that workers, of one host or of all, are loading just now."""
    said: dict[bytes, bytes] = client.hgetall(STARTING_KEY)  # type: ignore[assignment]
    if not said:
        return []
    seconds, _ = client.time()
    mine = (text for name, text in said.items() if not host or name.decode().rpartition("-")[0] == host)
    signs = (text.decode().partition(" ") for text in mine)
    return sorted({network for at, _, network in signs if seconds - float(at) < LONGEST})
