"""What must survive: every fault here is a real one, done to real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import zlib

import pytest
from fleet import LONG, PROJECT, Fleet, kill, photo, until
from stub_worker import HANGS, KILLS, RAISES

from worker.contract import BULK, INTERACTIVE, LOCALIZE


def test_worker_killed_mid_batch_another_takes_over(fleet: Fleet) -> None:
    """With the lease that workers have."""
    first, _ = fleet.start(2, seconds=0.2)
    requests = fleet.enqueue(range(24))
    until(lambda: fleet.running() >= 8, "both workers at work")
    kill(first)
    begun = time.monotonic()
    fleet.wait_for_all(requests)
    print(f"done {time.monotonic() - begun:.1f} s after a worker was killed")
    until(fleet.nothing_left, "empty queues")
    stats = fleet.stats()
    assert stats[f"jobs:{BULK}:finished"] == 24, "one was done twice, or not counted"
    assert all(fleet.job(request)["status"] == "finished" for request in requests)


def test_all_workers_killed_and_started_later(fleet: Fleet) -> None:
    workers = fleet.start(2, seconds=0.1, lease=3.0)
    requests = fleet.enqueue(range(40))
    until(lambda: fleet.running() >= 8, "both workers at work")
    for worker in workers:
        kill(worker)
    time.sleep(60 if LONG else 3.5)  # longer than the leases, which is what counts
    assert fleet.running() > 0, "the killed workers held nothing: the test tests nothing"
    fleet.start(1, seconds=0.01, lease=3.0)
    fleet.wait_for_all(requests)
    until(fleet.nothing_left, "empty queues")


@pytest.mark.parametrize("queue", [INTERACTIVE, BULK])
def test_lost_between_pop_and_start(fleet: Fleet, queue: str) -> None:
    """Our workers take and start in one step. What a stock worker loses that dies in between is found again."""
    requests = [fleet.request(task) for task in range(4)]
    fleet.jobs.submit(requests, interactive=queue == INTERACTIVE)
    key = f"rq:queue:{queue}"
    popped = fleet.client.lmove(key, f"{key}:intermediate", "LEFT", "RIGHT")  # died after LMOVE
    lost = fleet.client.lpop(key)  # died after BLPOP
    assert popped
    assert lost
    fleet.start(1)
    from worker.janitor import Janitor

    janitor = Janitor(fleet.client, "test", (INTERACTIVE, BULK))
    until(lambda: len(fleet.delivered_to()) == 2, "the two that were not lost")
    assert janitor.sweep() == 0, "one look is not enough: jobs move all the time"
    assert janitor.sweep() == 2
    fleet.wait_for_all(requests)
    until(fleet.nothing_left, "empty queues")


def test_killed_at_any_moment_of_taking(fleet: Fleet) -> None:
    """A worker that takes and finishes as fast as it can, killed again and again wherever it happens to be."""
    requests = fleet.enqueue(range(3000))
    for round_ in range(3):
        done = len(fleet.delivered_to())
        (worker,) = fleet.start(1, seconds=0.0, lease=2.0)
        until(lambda done=done: len(fleet.delivered_to()) > done, "some progress")
        time.sleep(0.05 * round_)
        kill(worker)
    fleet.start(1, seconds=0.0, lease=2.0)
    fleet.wait_for_all(requests)
    until(fleet.nothing_left, "empty queues")


def test_redis_killed_and_restarted_mid_run(fleet: Fleet) -> None:
    workers = fleet.start(2, seconds=0.05, lease=5.0)
    requests = fleet.enqueue(range(60))
    until(lambda: len(fleet.delivered_to()) > 5, "some progress")
    assert fleet.server.pid is not None
    subprocess.run(["kill", "-KILL", str(fleet.server.pid)], check=True)
    time.sleep(30 if LONG else 3)  # a worker sees no difference, it retries every second
    fleet.server.start()
    fleet.wait_for_all(requests)
    until(fleet.nothing_left, "empty queues")
    assert [worker.poll() for worker in workers] == [None, None], "workers survive"


def test_redis_away_for_longer_than_a_job_may_take(fleet: Fleet) -> None:
    """Results that are ready wait for Redis; the watchdog does not take that for a hang."""
    fleet.jobs._timeout = 2
    (worker,) = fleet.start(1, seconds=0.1, lease=3.0)
    requests = fleet.enqueue(range(20))
    until(lambda: fleet.delivered_to(), "some progress")
    fleet.server._end()
    time.sleep(6)
    assert worker.poll() is None
    fleet.server.start()
    fleet.wait_for_all(requests)
    assert worker.poll() is None
    until(fleet.nothing_left, "empty queues")


def test_sigterm_finishes_the_batch(fleet: Fleet) -> None:
    (worker,) = fleet.start(1, seconds=0.3)
    requests = fleet.enqueue(range(30))
    until(lambda: fleet.delivered_to(), "the first batch")
    before = len(fleet.delivered_to())
    time.sleep(0.2)  # into the next batch, which takes most of a second
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    done = fleet.delivered_to()
    assert before < len(done) < 30, "the batch under way is finished, and no other is begun"
    assert fleet.running() == 0, "jobs that were not begun are given back"
    rest = [request for request in requests if request.task not in done]
    assert fleet.client.llen(f"rq:queue:{BULK}") == len(rest)
    assert all(fleet.job(request)["tries"] == "0" for request in rest if "tries" in fleet.job(request))
    order = [key.decode() for key in fleet.client.lrange(f"rq:queue:{BULK}", 0, -1)]
    assert order == [request.job_id for request in rest], "the order is kept"


@pytest.mark.parametrize("jobs", [0, 30], ids=["idle", "busy"])
def test_sigterm_while_redis_is_away(fleet: Fleet, jobs: int) -> None:
    (worker,) = fleet.start(1, seconds=0.1, lease=3.0)
    requests = fleet.enqueue(range(jobs))
    until(lambda: not jobs or fleet.delivered_to(), "some progress")
    fleet.server._end()
    time.sleep(0.5)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(100) == 0
    fleet.server.start()
    fleet.start(1, lease=3.0)
    fleet.wait_for_all(requests)
    until(fleet.nothing_left, "empty queues")


@pytest.mark.parametrize(
    ("poison", "reason"),
    [(RAISES, "a poisonous photo"), (KILLS, "was killed by SIGKILL"), (HANGS, "took longer than its 3 s")],
    ids=["raises", "kills", "hangs"],
)
def test_poison_costs_only_itself(fleet: Fleet, poison: tuple[int, int, int], reason: str) -> None:
    fleet.jobs._timeout = 3
    fleet.start(1, supervised=1, seconds=0.001, lease=6.0)
    requests = [fleet.request(task, photo(poison) if task == 37 else None) for task in range(100)]
    fleet.jobs.submit(requests, interactive=False)
    poisonous = requests.pop(37)
    fleet.wait_for_all(requests)
    until(lambda: fleet.job(poisonous).get("status") == "failed", "the failure of the poison")
    until(fleet.nothing_left, "empty queues")
    job = fleet.job(poisonous)
    assert reason in job["reason"]
    assert job["tries"] == "3", "one try and two more"
    assert fleet.client.zscore(f"rq:failed:{BULK}", poisonous.job_id) is not None
    tries = [int(fleet.job(request)["tries"]) for request in requests]
    assert max(tries) <= 2, "others are tried again at most once"
    told = {kind: fleet.stats().get(f"jobs:{BULK}:{kind}", 0) for kind in ("finished", "failed", "retried", "lost")}
    again = sum(tries) - len(tries) + 2
    assert told == {"finished": 99, "failed": 1, "retried": again, "lost": 0}, "also what dead workers left"


def test_batches_shrink_to_what_memory_holds(fleet: Fleet) -> None:
    fleet.start(1, most=3, batch=16)
    many = fleet.request(1000, images=40)
    fleet.jobs.submit([many], interactive=False)
    requests = fleet.enqueue(range(50))
    results = fleet.wait_for_all([many, *requests])
    assert len(results[1000].images) == 40
    assert all(image.detections for image in results[1000].images)
    assert {fleet.job(request)["tries"] for request in [many, *requests]} == {"1"}, "no job is blamed for it"


def test_urgent_job_overtakes_bulk(fleet: Fleet) -> None:
    fleet.start(1, seconds=0.05)
    fleet.enqueue(range(1000))
    until(lambda: len(fleet.delivered_to()) > 5, "some progress")
    answered = fleet.jobs.submit([fleet.request(5000)], interactive=True, wait=60)
    assert 5000 in answered
    assert len(fleet.delivered_to()) < 500, "it did not wait for the others"


def test_urgent_jobs_overtake_bulk_behind_one_that_is_tried_again(fleet: Fleet) -> None:
    """A suspect at the head of the urgent queue waits for empty hands: they must become empty."""
    fleet.start(1, seconds=0.1)
    fleet.enqueue(range(600))
    until(lambda: len(fleet.delivered_to()) > 5, "some progress")
    poison = fleet.request(5000, photo(RAISES))
    fleet.jobs.submit([poison], interactive=True)
    until(lambda: "reason" in fleet.job(poison), "its first try")
    assert set(fleet.jobs.submit([fleet.request(5001)], interactive=True, wait=100)) == {5001}
    until(lambda: fleet.job(poison)["status"] == "failed", "the last of its tries")
    assert len(fleet.delivered_to()) < 500, "the whole bulk was waited for"


@pytest.mark.parametrize("what", ["os.system", "worker.main.run_worker", None])
def test_only_one_function_is_ever_run(fleet: Fleet, what: str | None) -> None:
    (request,) = fleet.enqueue([1])
    data = b"\x80\x04not json" if what is None else json.dumps([what, None, ["touch /tmp/owned"], {}]).encode()
    fleet.client.hset(f"rq:job:{request.job_id}", "data", zlib.compress(data))
    fleet.start(1)
    until(lambda: fleet.job(request).get("status") == "failed", "the refusal")
    assert fleet.job(request)["tries"] == "1"
    reason = fleet.job(request)["reason"]
    assert (LOCALIZE in reason) if what else ("JSON" in reason)
    assert PROJECT not in fleet.client.smembers("boxlift:1:outboxes")
