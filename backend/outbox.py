"""Results on their way to Label Studio: nothing leaves before it has arrived, and nobody sends the same twice.

outbox:<project>  ──take──►  sending:<project>  ──done──►  gone
       ▲                            │
       └──────────restore───────────┘   (Label Studio is down, or the sender died)

A sender holds the project's lock, delivery:<project>, for as long as it lives. While it waits for Label Studio to
import, importing:<project> is there besides, and outlives a sender that is killed or gives up: Label Studio may go
on importing what it was sent, so nothing is sent again until that is over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import redis

from backend.held import held
from worker.contract import (
    FAILING_KEY,
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
-- KEYS: outbox, sending. ARGV: most. Moves entries, in no order, and returns them.
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

_REPORT = """
-- KEYS: failures, failing. ARGV: most, then entries, each in place of what was said of its task before.
for i = 2, #ARGV do
  local entry = cjson.decode(ARGV[i])
  local task = string.format('%d:%d', entry.project, entry.task)
  local before = redis.call('HGET', KEYS[2], task)
  if before then redis.call('LREM', KEYS[1], 1, before) end
  redis.call('LPUSH', KEYS[1], ARGV[i])
  redis.call('HSET', KEYS[2], task, ARGV[i])
end
while redis.call('LLEN', KEYS[1]) > tonumber(ARGV[1]) do
  local old = cjson.decode(redis.call('RPOP', KEYS[1]))
  redis.call('HDEL', KEYS[2], string.format('%d:%d', old.project, old.task))
end
"""

HELD = 20.0
"""Seconds that a sender's lock outlives its last sign of life."""


class Outbox:
    """The outboxes of all projects in Redis. Methods raise redis-py's errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._take = client.register_script(_TAKE)
        self._restore = client.register_script(_RESTORE)
        self._report = client.register_script(_REPORT)

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
        with held(self._client, f"{PREFIX}delivery:{project}", HELD) as ours:
            if ours is None:
                yield None
                return
            try:
                self.restore(project)
                yield ours
            finally:
                if ours():  # else another sender is at it, and what is being sent is its own
                    self.restore(project)

    def importing(self, project: int) -> bool:
        """Whether Label Studio may still be importing what it was sent."""
        return bool(self._client.exists(_importing_key(project)))

    def expect_import(self, project: int, seconds: float) -> None:
        """Say that it may for so long; with 0, that it is over."""
        if seconds > 0:
            self._client.set(_importing_key(project), "1", px=max(1, int(seconds * 1000)))
        else:
            self._client.delete(_importing_key(project))

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
        now = time.time()
        entries = [
            json.dumps({"at": now, "project": project, "task": task, "job": "", "reason": reason})
            for task, reason in reasons.items()
        ]
        self._report([FAILURES_KEY, FAILING_KEY], [FAILURES_KEPT, *entries])


def _importing_key(project: int) -> str:
    return f"{PREFIX}importing:{project}"
