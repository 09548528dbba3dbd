"""Tunings of projects in a worker: read from Redis once, and the few that were used last kept ready."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from worker.contract import Tuning, tuning_key
from worker.errors import BoxliftError

if TYPE_CHECKING:
    import redis

    from worker.jobs import Localizer


log = logging.getLogger("boxlift.worker")

READY = 8
"""Most localizers of projects kept at once; where labels were learned, each holds a network's last layer."""


class Tunings:
    """Version of a tuning → the localizer to use.

    A tuning that is gone from Redis, or belongs to other weights than this worker's, cannot be used: then the
    worker's own localizer is, with one notice, and the results carry its own version. So nothing is lost when a
    network is replaced: projects have its defaults until they are tuned again.
    """

    def __init__(self, client: redis.Redis, localizer: Localizer) -> None:
        self._client = client
        self._own = localizer
        self._ready: OrderedDict[str, Localizer] = OrderedDict()
        self._told: set[str] = set()

    def localizer(self, version: str | None) -> Localizer:
        """The localizer of a `Plan.tuning`. Raises what Redis raises while it is away."""
        if version is None or version == self._own.model.version:
            return self._own
        if version not in self._ready:
            made = self._make(version)
            if made is None:
                return self._own
            self._ready[version] = made
            if len(self._ready) > READY:
                self._ready.popitem(last=False)
        self._ready.move_to_end(version)
        return self._ready[version]

    def _make(self, version: str) -> Localizer | None:
        text = self._client.get(tuning_key(version))
        if text is None:
            self._notice(version, "it is no longer in Redis")
            return None
        try:
            tuning = Tuning.from_dict(json.loads(text))
            if tuning.base == self._own.model.version:
                return self._own.tuned(tuning)
            self._notice(version, f"it belongs to {tuning.base}")
        except BoxliftError as error:
            self._notice(version, str(error))
        return None

    def _notice(self, version: str, why: str) -> None:
        if version not in self._told:
            self._told.add(version)
            log.warning(
                "NOTICE: %s instead of the project's own %s: %s; tune the project again",
                self._own.model.version,
                version,
                why,
                extra={"event": "untuned", "version": version},
            )
