"""A Redis that answers and refuses to write: full, or another's replica. All wait, as for one that is gone."""

from __future__ import annotations

import time

import pytest
import redis
from fleet import Fleet, until

from worker.patience import away


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_workers_wait_until_it_writes_again(fleet: Fleet, fault: str) -> None:
    (worker,) = fleet.start(1, seconds=0.05, lease=2.0)
    requests = fleet.enqueue(range(200))
    until(lambda: len(fleet.delivered_to()) > 5, "some progress")
    if fault == "full":
        fleet.client.config_set("maxmemory", "1")
    else:
        fleet.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(redis.ResponseError):
        fleet.client.hset("test", "field", "value")
    time.sleep(6)  # longer than the leases
    assert worker.poll() is None
    fleet.client.config_set("maxmemory", "0")
    fleet.client.execute_command("REPLICAOF", "NO", "ONE")
    fleet.wait_for_all(requests)
    until(fleet.nothing_left, "empty queues")
    assert worker.poll() is None
    assert not any("suspect" in fleet.job(request) for request in requests), "no job is blamed for it"
    later = fleet.enqueue(range(1000, 1040))  # longer than a lease: they are still renewed
    fleet.wait_for_all([*requests, *later])
    assert {fleet.job(request)["tries"] for request in later} == {"1"}


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (redis.ConnectionError("gone"), True),
        (redis.TimeoutError("slow"), True),
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'. OOM"), True),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
        (redis.ResponseError("Error running script (call to f_1): @user_script:5: -OOM command not allowed"), True),
        (redis.exceptions.ReadOnlyError("READONLY You can't write against a read only replica."), True),
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), False),
        (redis.ResponseError("unknown command 'BOOM'"), False),
    ],
)
def test_what_passes(error: redis.RedisError, passes: bool) -> None:
    assert away(error) is passes
