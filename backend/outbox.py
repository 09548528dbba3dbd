"""Results on their way to Label Studio: nothing leaves before it has arrived, and nobody sends the same twice.

outbox:<project>  ──take──►  sending:<project>  ──done──►  gone
       ▲                            │
       └──────────restore───────────┘   (Label Studio is down, or the sender died)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import redis

from worker.contract import (
    FAILURES_KEPT,
    FAILURES_KEY,
    OUTBOXES_KEY,
    PREFIX,
    Result,
    outbox_key,
    sending_key,
)
from worker.errors import ContractError

_TAKE = """
-- KEYS: outbox, sending. ARGV: most. Moves entries, oldest hash order first, and returns them.
local found, cursor, moved = {}, '0', 0
repeat
  local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', ARGV[1])
  cursor = page[1]
  for i = 1, #page[2], 2 do
    if moved < tonumber(ARGV[1]) then
      found[#found + 1] = page[2][i]
      found[#found + 1] = page[2][i + 1]
      moved = moved + 1
    end
  end
until cursor == '0' or moved >= tonumber(ARGV[1])
for i = 1, #found, 2 do
  redis.call('HDEL', KEYS[1], found[i])
  redis.call('HSET', KEYS[2], found[i], found[i + 1])
end
return found
"""

_RESTORE = """
-- KEYS: outbox, sending, outboxes. ARGV: project. What was not sent goes back, unless something newer is there.
local entries = redis.call('HGETALL', KEYS[2])
for i = 1, #entries, 2 do redis.call('HSETNX', KEYS[1], entries[i], entries[i + 1]) end
redis.call('DEL', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('SADD', KEYS[3], ARGV[1])
else
  redis.call('SREM', KEYS[3], ARGV[1])
end
return #entries / 2
"""

_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_HOLD = 120_000
"""Milliseconds that a sender's lock outlives its last sign of life: longer than any request to Label Studio."""


class Outbox:
    """The outboxes of all projects in Redis. Methods raise redis-py's errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._take = client.register_script(_TAKE)
        self._restore = client.register_script(_RESTORE)
        self._unlock = client.register_script(_UNLOCK)
        self._renew = client.register_script(_RENEW)

    def projects(self) -> list[int]:
        """Projects with something to send."""
        return sorted(int(project) for project in self._client.smembers(OUTBOXES_KEY))

    def waiting(self, project: int) -> int:
        """How many results of a project are not in Label Studio yet."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hlen(outbox_key(project))
        pipe.hlen(sending_key(project))
        return sum(pipe.execute())

    def tasks(self, project: int) -> set[int]:
        """The tasks of these results."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hkeys(outbox_key(project))
        pipe.hkeys(sending_key(project))
        return {int(task) for keys in pipe.execute() for task in keys}

    @contextmanager
    def locked(self, project: int) -> Iterator[Callable[[], bool] | None]:
        """A call that prolongs the lock and says whether it is still ours; None where another sends already.

        What a sender that died left goes back into the outbox first, and what this one leaves at the end.
        """
        key, token = f"{PREFIX}delivery:{project}", uuid4().hex
        if not self._client.set(key, token, nx=True, px=_HOLD):
            yield None
            return
        try:
            self.restore(project)
            yield lambda: bool(self._renew([key], [token, _HOLD]))
        finally:
            self.restore(project)
            self._unlock([key], [token])

    def take(self, project: int, most: int) -> tuple[dict[int, Result], dict[int, str]]:
        """Up to `most` results by task, to be sent now; and what cannot be read, with the reason."""
        rows = self._take([outbox_key(project), sending_key(project)], [most])
        results: dict[int, Result] = {}
        broken: dict[int, str] = {}
        for task, text in zip(rows[::2], rows[1::2], strict=True):
            try:
                results[int(task)] = Result.from_dict(json.loads(text))
            except (ContractError, ValueError) as error:
                broken[int(task)] = str(error)
        return results, broken

    def done(self, project: int, tasks: Iterable[int]) -> None:
        """These are in Label Studio, or never will be."""
        fields = [str(task) for task in tasks]
        if fields:
            self._client.hdel(sending_key(project), *fields)

    def restore(self, project: int) -> None:
        """Whatever was taken and is not done is to be sent again."""
        self._restore([outbox_key(project), sending_key(project), OUTBOXES_KEY], [project])

    def report(self, project: int, reasons: dict[int, str]) -> None:
        """Put results that Label Studio will never take where people see them."""
        if not reasons:
            return
        entries = [
            json.dumps({"at": time.time(), "project": project, "task": task, "job": "", "reason": reason})
            for task, reason in reasons.items()
        ]
        pipe = self._client.pipeline(transaction=True)
        pipe.lpush(FAILURES_KEY, *entries)
        pipe.ltrim(FAILURES_KEY, 0, FAILURES_KEPT - 1)
        pipe.execute()
