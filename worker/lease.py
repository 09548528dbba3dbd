"""A worker's signs of life: leases of its jobs, its entry among RQ's workers, what it says about itself."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from worker.contract import MODEL_KEY, WORKERS_KEY, Model, model_key
from worker.ledger import Held, Ledger

log = logging.getLogger("boxlift.worker")

_KEPT = 30 * 86400
"""Seconds that the announcement of one model version outlives its last worker."""
_SILENT = 300
"""Seconds that what workers say about themselves outlives the last of them."""


class Registration:
    """This worker among RQ's (`rq info` shows it), and the model that it announces."""

    def __init__(self, client: redis.Redis, name: str, queues: Sequence[str], model: Model) -> None:
        self._client = client
        self._model = model
        self._rq = SimpleWorker(
            list(queues),
            name=name,
            connection=client,
            serializer=JSONSerializer,
            worker_ttl=30,
            prepare_for_work=True,
        )

    def enter(self, about: dict[str, Any]) -> None:
        """Register and announce the model, replacing what another version announced."""
        self._announce(replace=True)
        if not self._client.exists(self._rq.key):
            self._rq.register_birth()  # type: ignore[no-untyped-call]
            self._rq.set_state("idle")
        self._say(about)  # last, as in `beat`: whoever sees a live worker finds all of it

    def beat(self, busy: bool, about: dict[str, Any]) -> None:
        """Still alive. Registers anew where Redis has forgotten."""
        if not self._client.exists(self._rq.key):
            self._rq.register_birth()  # type: ignore[no-untyped-call]
        self._rq.heartbeat(60)
        self._rq.set_state("busy" if busy else "idle")
        self._announce(replace=False)
        self._say(about)

    def leave(self) -> None:
        """Take this worker off the lists."""
        self._client.hdel(WORKERS_KEY, self._rq.name)
        self._rq.register_death()  # type: ignore[no-untyped-call]

    def _announce(self, *, replace: bool) -> None:
        text = json.dumps(self._model.to_dict())
        self._client.set(MODEL_KEY, text, nx=not replace)
        self._client.set(model_key(self._model.version), text, ex=_KEPT)

    def _say(self, about: dict[str, Any]) -> None:
        seconds, _ = self._client.time()
        self._client.hset(WORKERS_KEY, self._rq.name, json.dumps(about | {"seen": seconds}))
        self._client.expire(WORKERS_KEY, _SILENT)


class Keeper(threading.Thread):
    """Renews the leases of what `held` returns, and asks the worker to stop when its parent process is gone.

    A lease outlives four renewals, so that a short hiccup costs nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        registration: Registration,
        held: Callable[[], Sequence[Held]],
        about: Callable[[], dict[str, Any]],
        orphaned: Callable[[], None],
    ) -> None:
        super().__init__(name="lease", daemon=True)
        self._ledger = ledger
        self._registration = registration
        self._held = held
        self._about = about
        self._orphaned = orphaned
        self._parent = os.getppid()
        self._end = threading.Event()

    def run(self) -> None:
        beat = 0.0
        while not self._end.wait(self._ledger.lease / 5):
            if os.getppid() != self._parent:
                self._orphaned()
            try:
                held = self._held()
                lost = self._ledger.renew(held)
                if lost:  # most were finished a moment ago; who really loses one finds out when finishing
                    log.debug("not renewed: %s", ", ".join(sorted(lost)))
                if time.monotonic() - beat > 5:
                    self._registration.beat(bool(held), self._about())
                    beat = time.monotonic()
            except redis.RedisError as error:  # whichever: without this thread the worker would lose all it holds
                log.debug("not renewed: %s", error)

    def stop(self) -> None:
        """End the thread. May be called again."""
        self._end.set()
        if self.is_alive():
            self.join(timeout=15)
