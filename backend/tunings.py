"""Projects' own tunings in Redis: the one in use, wishes for a new one, and what became of them.

Nothing here is precious: corrections are in Label Studio, and tuning again makes the same tuning of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from uuid import uuid4

import redis

from backend.announced import tuned_model
from backend.queueing import talking
from worker.contract import (
    CORRECTED_KEY,
    MODEL_KEY,
    TUNING_STATES_KEY,
    TUNING_WISHES_KEY,
    Model,
    Tuning,
    model_key,
    tuned_key,
    tuning_key,
)
from worker.errors import ContractError

log = logging.getLogger("boxlift.tuning")

TTL = 366 * 86400
"""Seconds that a tuning outlives its last use."""


_GRANTED = """
if redis.call("HGET", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call("HDEL", KEYS[1], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class State:
    """What became of the last wish to tune a project."""

    at: float
    """Unix time of this state."""
    state: str
    """`waiting`, `running`, `done` or `failed`."""
    message: str = ""
    version: str = ""
    """Of the tuning in use since then; empty where the old one stays."""
    seconds: float = 0.0


class Tunings:
    """Every method raises QueueError where Redis cannot be reached."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def of(self, project: int) -> Tuning | None:
        """The project's own tuning, kept longer by being used; None where it has none that can be read."""
        with talking():
            found = self._client.get(tuned_key(project))
            version = found.decode() if isinstance(found, bytes) else ""
            text = self._client.get(tuning_key(version)) if version else None
            if not text:
                return None
            pipe = self._client.pipeline(transaction=False)
            for key in (tuned_key(project), tuning_key(version), model_key(version)):
                pipe.expire(key, TTL)
            pipe.execute()
        try:
            return Tuning.from_dict(json.loads(text))
        except (ContractError, ValueError, TypeError) as error:
            log.warning("%s is damaged (%s): tune the project again", version, error, extra={"project": project})
            return None

    def announced(self) -> Model | None:
        """What the workers run."""
        with talking():
            text = self._client.get(MODEL_KEY)
        return Model.from_dict(json.loads(text)) if text else None

    def version(self, project: int) -> str | None:
        """The version that predicts for the project: of its tuning, or of the announced model; None before any."""
        own, announced = self.of(project), self.announced()
        if own is not None and announced is not None and own.base == announced.version:
            return own.version
        return announced.version if announced else None

    def publish(self, tuning: Tuning, base: Model) -> str:
        """Have the project's tasks predicted with this from now on. Returns its version."""
        model = tuned_model(tuning, base)
        with talking():
            pipe = self._client.pipeline(transaction=True)
            pipe.set(tuning_key(tuning.version), json.dumps(tuning.to_dict()), ex=TTL)
            pipe.set(model_key(tuning.version), json.dumps(model.to_dict()), ex=TTL)
            pipe.set(tuned_key(tuning.project), tuning.version, ex=TTL)
            pipe.execute()
        return tuning.version

    def withdraw(self, project: int) -> bool:
        """Back to the workers' defaults; jobs under way end with the tuning that they were made with."""
        with talking():
            return bool(self._client.delete(tuned_key(project)))

    def wish(self, project: int, *, repredict: bool = False) -> bool:
        """Ask for a tuning in the background. False where one was waited for already; then it is the newer wish."""
        wish = json.dumps({"repredict": repredict, "id": uuid4().hex})
        with talking():
            new = bool(self._client.hset(TUNING_WISHES_KEY, str(project), wish))
        if new:
            self.note(project, "waiting", "a machine with workers will take it up")
        return new

    def wishes(self) -> dict[int, str]:
        """Project → its wish, a JSON object: whether to predict again (`repredict`)."""
        with talking():
            found: dict[bytes, bytes] = self._client.hgetall(TUNING_WISHES_KEY)  # type: ignore[assignment]
        return {int(project): text.decode(errors="replace") for project, text in found.items() if project.isdigit()}

    def granted(self, project: int, wish: str) -> bool:
        """This wish is done with. False, and it stays, where there is a newer one."""
        script = self._client.register_script(_GRANTED)
        with talking():
            return bool(script([TUNING_WISHES_KEY], [str(project), wish]))

    def note(self, project: int, state: str, message: str = "", *, version: str = "", seconds: float = 0.0) -> None:
        """Say how far it is, where `boxlift status` looks."""
        told = State(time.time(), state, message, version, round(seconds, 1))
        with talking():
            self._client.hset(TUNING_STATES_KEY, str(project), json.dumps(asdict(told)))

    def states(self) -> dict[int, State]:
        """Project → what became of its last wish."""
        with talking():
            found = self._client.hgetall(TUNING_STATES_KEY)
        states = {}
        for project, text in found.items():
            with contextlib.suppress(ValueError, TypeError):  # what another version wrote is told by nobody
                states[int(project)] = State(**json.loads(text))
        return dict(sorted(states.items()))

    def corrected(self, project: int, every: int, some: int = 1) -> bool:
        """Count corrections; True where there are `every` since the last time."""
        with talking():
            count = self._client.hincrby(CORRECTED_KEY, str(project), some)
            if count < every:
                return False
            self._client.hdel(CORRECTED_KEY, str(project))
        return True
