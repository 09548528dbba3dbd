"""Tasks to jobs: once each, urgent ones first, never more than the limit, and never a wait in vain."""

from __future__ import annotations

import json
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis
from fleet import PROJECT, VERSION, Fleet, kill, photo, until
from stub_worker import RAISES

from backend.app import create_app
from backend.outbox import Outbox
from backend.queueing import Jobs, connect
from backend.settings import Settings
from worker.contract import (
    BULK,
    CLAIMS_KEY,
    FAILING_KEY,
    FAILURES_KEY,
    INTERACTIVE,
    LOCALIZE,
    MODEL_KEY,
    OUTBOXES_KEY,
    STARTING_KEY,
    STATS_KEY,
    ImageRef,
    Model,
    Plan,
    Request,
    Result,
    model_key,
    outbox_key,
    tuned_key,
    waiting_key,
)
from worker.errors import ContractError, QueueError, QueueFullError
from worker.janitor import Janitor
from worker.ledger import Ledger
from worker.starting import starting


def waiting(fleet: Fleet, queue: str) -> list[str]:
    return [job.decode() for job in fleet.client.lrange(f"rq:queue:{queue}", 0, -1)]


def test_a_job_holds_json_and_addresses_only(fleet: Fleet) -> None:
    (request,) = fleet.enqueue([1], "https://example.org/cat.jpg")
    data = json.loads(zlib.decompress(fleet.client.hget(f"rq:job:{request.job_id}", "data") or b""))
    function, instance, arguments, keywords = data
    assert (function, instance, keywords) == (LOCALIZE, None, {})
    assert [Request.from_dict(argument) for argument in arguments] == [request]
    job = fleet.job(request)
    assert job["timeout"] == "20"
    assert job["retries_left"] == "2"
    assert int(job["result_ttl"]) > 0
    assert int(job["failure_ttl"]) > 0
    assert fleet.client.memory_usage(f"rq:job:{request.job_id}") < 2048


def test_pages_get_more_time(fleet: Fleet) -> None:
    request = fleet.request(1, images=40)
    fleet.jobs.submit([request], interactive=False)
    assert fleet.job(request)["timeout"] == "60"


def test_the_same_work_is_one_job(fleet: Fleet) -> None:
    requests = [fleet.request(task) for task in range(50)]

    def submit(_: int) -> None:
        jobs = Jobs(connect(fleet.server.url))
        jobs.submit(requests, interactive=False)
        jobs.client.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(submit, range(6)))
    assert sorted(waiting(fleet, BULK)) == sorted(request.job_id for request in requests)


def test_other_images_plan_or_version_is_other_work(fleet: Fleet) -> None:
    base = fleet.request(1)
    others = [
        Request(PROJECT, 1, VERSION, fleet.plan, (ImageRef("https://example.org/other.jpg", "image"),)),
        Request(PROJECT, 1, "stub-2", fleet.plan, base.images),
        Request(PROJECT, 1, VERSION, fleet.jobs.put_plan(Plan("<View></View>")), base.images),
        Request(PROJECT + 1, 1, VERSION, fleet.plan, base.images),
        Request(PROJECT, 2, VERSION, fleet.plan, base.images),
    ]
    for request in [base, *others]:
        fleet.jobs.submit([request], interactive=False)
    assert len(set(waiting(fleet, BULK))) == 6


def test_a_task_that_is_opened_leaves_the_bulk(fleet: Fleet) -> None:
    requests = fleet.enqueue(range(10))
    assert fleet.jobs.submit([requests[7]], interactive=True) == {}
    assert waiting(fleet, INTERACTIVE) == [requests[7].job_id]
    assert requests[7].job_id not in waiting(fleet, BULK)
    assert len(waiting(fleet, BULK)) == 9
    fleet.enqueue([7])
    assert waiting(fleet, INTERACTIVE) == [requests[7].job_id], "and does not go back"
    fleet.start(1)
    fleet.wait_for_all(requests)


def test_no_wait_without_workers(fleet: Fleet) -> None:
    start = time.monotonic()
    assert fleet.jobs.submit([fleet.request(1)], interactive=True, wait=60) == {}
    assert time.monotonic() - start < 30
    assert not fleet.client.exists(waiting_key(fleet.request(1).job_id))
    assert len(waiting(fleet, INTERACTIVE)) == 1, "it is enqueued all the same"


def test_no_wait_behind_more_than_can_be_done(fleet: Fleet) -> None:
    fleet.client.hset(
        "boxlift:1:workers", "busy", json.dumps({"rate": 2.0, "seen": fleet.client.time()[0], "version": VERSION})
    )
    fleet.jobs.submit([fleet.request(task) for task in range(200)], interactive=True)
    start = time.monotonic()
    assert fleet.jobs.submit([fleet.request(1000)], interactive=True, wait=60) == {}
    assert time.monotonic() - start < 30, "200 tasks at 2 a second are not done in a minute"


def test_limit(fleet: Fleet) -> None:
    jobs = Jobs(fleet.client, limit=10)
    jobs.submit([fleet.request(task) for task in range(8)], interactive=False)
    with pytest.raises(QueueFullError, match="BOXLIFT_QUEUE_LIMIT") as caught:
        jobs.submit([fleet.request(task) for task in range(100, 105)], interactive=False)
    assert caught.value.retry_after > 0
    assert len(waiting(fleet, BULK)) == 8
    known = [fleet.request(task) for task in range(8)]
    assert jobs.submit(known, interactive=True) == {}, "what waits already takes no further place"
    jobs.submit([fleet.request(8)], interactive=False)
    assert len(waiting(fleet, BULK) + waiting(fleet, INTERACTIVE)) == 9


def test_what_is_done_is_answered_above_the_limit(fleet: Fleet) -> None:
    fleet.start(1)
    requests = fleet.enqueue(range(3))
    results = fleet.wait_for_all(requests)
    jobs = Jobs(fleet.client, limit=1)
    fleet.client.rpush(f"rq:queue:{BULK}", "others", "wait")
    assert jobs.submit(requests, interactive=True) == results


def test_paused_tasks_and_undelivered_results_count(fleet: Fleet) -> None:
    jobs = Jobs(fleet.client, limit=10)
    fleet.client.zadd(f"rq:scheduled:{BULK}", {f"paused-{n}": 2**40 for n in range(5)})
    jobs.submit([fleet.request(task) for task in range(5)], interactive=False)
    with pytest.raises(QueueFullError):
        jobs.submit([fleet.request(5)], interactive=False)
    fleet.client.delete(f"rq:scheduled:{BULK}")
    fleet.client.hset(outbox_key(8), mapping={str(task): "a result" for task in range(5)})
    fleet.client.sadd(OUTBOXES_KEY, 8)
    with pytest.raises(QueueFullError):
        jobs.submit([fleet.request(5)], interactive=False)
    assert jobs.submit([fleet.request(5)], interactive=True) == {}, "who asks is answered"


def test_finished_work_is_answered_and_leaves_the_outbox(fleet: Fleet) -> None:
    fleet.start(1)
    requests = fleet.enqueue(range(5))
    results = fleet.wait_for_all(requests)
    answered = fleet.jobs.submit(requests[:2], interactive=True, wait=30)
    assert answered == {task: results[task] for task in (0, 1)}
    assert fleet.delivered_to() == {2, 3, 4}, "who answers takes it out"
    assert fleet.jobs.submit(requests[:2], interactive=False) == answered, "and it can be answered again"


def test_failed_work_is_tried_anew_only_after_a_while(fleet: Fleet) -> None:
    fleet.start(1)
    (request,) = fleet.enqueue([1], photo(RAISES))
    until(lambda: fleet.job(request).get("status") == "failed", "the failure")
    ended = fleet.job(request)["ended"]
    assert fleet.jobs.submit([request], interactive=True, wait=30) == {}
    assert fleet.job(request)["ended"] == ended, "not tried again at once"
    eager = Jobs(fleet.client, pause=0.0)
    eager.submit([request], interactive=False)
    until(lambda: fleet.job(request).get("ended", ended) != ended, "another try")


def test_a_result_without_its_image_is_tried_anew_after_a_while(fleet: Fleet) -> None:
    fleet.start(1)
    broken = fleet.request(1, "data:image/png;base64,AAAA")
    result = fleet.jobs.submit([broken], interactive=True, wait=60)[1]
    assert result.images[0].error
    assert fleet.jobs.submit([broken], interactive=False) == {1: result}, "known already"
    eager = Jobs(fleet.client, pause=0.0)
    time.sleep(0.01)
    assert eager.submit([broken], interactive=False) == {}
    fleet.wait_for_all([broken])


def test_version_of_a_worker_with_the_same_classes(fleet: Fleet) -> None:
    """After an upgrade, what waits is done by the new model, under the new model's name."""
    old = Model(version="stub-0", network="stub", classes=("cat", "dog"))
    fleet.client.set(model_key("stub-0"), json.dumps(old.to_dict()))
    plan = fleet.jobs.put_plan(Plan("<View/>", classes=(0,)))
    request = Request(PROJECT, 1, "stub-0", plan, fleet.request(1).images)
    fleet.jobs.submit([request], interactive=False)
    fleet.start(1)
    assert fleet.wait_for_all([request])[1].model_version == VERSION


def test_version_of_a_worker_with_other_classes_is_refused(fleet: Fleet) -> None:
    old = Model(version="stub-0", network="stub", classes=("dog", "cat"))
    fleet.client.set(model_key("stub-0"), json.dumps(old.to_dict()))
    plan = fleet.jobs.put_plan(Plan("<View/>", classes=(0,)))
    request = Request(PROJECT, 1, "stub-0", plan, fleet.request(1).images)
    fleet.jobs.submit([request], interactive=False)
    fleet.start(1)
    until(lambda: fleet.job(request).get("status") == "failed", "the refusal")
    assert "stub-0" in fleet.job(request)["reason"]


def test_model_and_plans(fleet: Fleet) -> None:
    assert fleet.jobs.model() is None
    model = Model("v", "n", ("a", "b"))
    fleet.client.set(MODEL_KEY, json.dumps(model.to_dict()))
    assert fleet.jobs.model() == model
    plan = Plan("<View/>", classes=(1, 2), max_boxes=3, classes_of={"a": (1,), "b": None})
    assert fleet.jobs.plan(fleet.jobs.put_plan(plan)) == plan
    assert fleet.jobs.plan("nothing") is None
    fleet.client.set(MODEL_KEY, '{"version": 1}')
    with pytest.raises(ContractError):
        fleet.jobs.model()


def test_redis_away_is_an_error_that_says_so(fleet: Fleet) -> None:
    fleet.server._end()
    with pytest.raises(QueueError, match="REDIS_URL") as caught:
        fleet.jobs.submit([fleet.request(1)], interactive=True, wait=5)
    assert fleet.server._password not in str(caught.value)
    fleet.server.start()
    fleet.jobs.submit([fleet.request(1)], interactive=False)


ENDLESS = {
    MODEL_KEY: "one entry: what the last worker announced",
    STATS_KEY: "a few counters for each queue",
    FAILURES_KEY: "a thousand entries at most",
    FAILING_KEY: "an entry for each of these at most",
    OUTBOXES_KEY: "the projects that have an outbox; a project leaves with its last result",
    "rq:queues": "the names of two queues",
    "rq:workers": "names; the janitor takes out those of the dead",
} | {
    f"rq:{kind}:{queue}": why
    for queue in (INTERACTIVE, BULK)
    for kind, why in {
        "workers": "names; the janitor takes out those of the dead",
        "queue": "what waits: BOXLIFT_QUEUE_LIMIT is the most",
        "scheduled": "the same",
        "wip": "what workers hold; an entry ends with its lease",
        "finished": "ids of jobs that are kept; the janitor takes out the others",
        "failed": "the same",
    }.items()
}
"""Keys without an end of their own, and what bounds them."""


def test_every_key_has_an_end_or_a_bound(fleet: Fleet) -> None:
    """All keys that Redis holds are looked at: after tasks that were done, answered, failed, broken and cancelled,
    while some wait, while a worker lives and after another was killed."""
    dead, _ = fleet.start(2)
    kill(dead)
    requests = fleet.enqueue(range(5)) + fleet.enqueue([9], photo(RAISES)) + fleet.enqueue([10], "data:,nothing")
    fleet.jobs.submit([fleet.request(20)], interactive=True, wait=60)
    until(lambda: fleet.job(requests[5]).get("status") == "failed", "the failure")
    until(lambda: len(fleet.delivered_to()) >= 6, "the results")
    with starting(fleet.server.url, "vgg16"):
        until(lambda: fleet.client.exists(STARTING_KEY), "the sign of a worker that starts")
        client = create_app(Settings(redis_url=fleet.server.url)).test_client()
        assert client.get("/metrics").status_code == 200
        fleet.jobs.submit(
            [fleet.request(task, "http://127.0.0.1:1/") for task in range(500, 503)], interactive=False
        )
        with Outbox(fleet.client).locked(PROJECT) as ours:
            assert ours
            found = {key.decode(): fleet.client.ttl(key) for key in fleet.client.scan_iter()}
    endless = {key for key, ttl in found.items() if ttl < 0}
    live = {key for key in endless if key.startswith("rq:job:") and fleet.client.hget(key, "status") in LIVE}
    assert endless - live - set(ENDLESS) == set()
    assert len(found) > 30


LIVE = (b"queued", b"started", b"scheduled")


def test_names_of_the_dead_are_forgotten(fleet: Fleet) -> None:
    (dead,) = fleet.start(1)
    kill(dead)
    assert fleet.client.scard("rq:workers") == 1
    for key in fleet.client.keys("rq:worker:*"):
        fleet.client.delete(key)  # as RQ's own end does after a minute
    seconds, _ = fleet.client.time()
    fleet.client.hset(STARTING_KEY, mapping={"dead-1": f"{seconds - 1000} vgg16", "alive-1": f"{seconds} vgg16"})
    Janitor(fleet.client, "test", (INTERACTIVE, BULK)).sweep()
    assert fleet.client.scard("rq:workers") == 0
    assert fleet.client.scard(f"rq:workers:{BULK}") == 0
    assert fleet.client.hkeys(STARTING_KEY) == [b"alive-1"]


def test_a_worker_whose_answer_was_lost_has_finished(fleet: Fleet) -> None:
    """The call did its work and the reply did not arrive: sent again, it says the same, and changes nothing."""
    done, failed = fleet.enqueue([1, 2])
    ledger = Ledger(fleet.client, "test", (INTERACTIVE, BULK), lease=30.0)
    first, second = ledger.take({BULK: 2}, holding=0)
    result = Result(PROJECT, 1, VERSION, fleet.plan, ())
    assert ledger.finish(first, done, result)
    assert ledger.finish(first, done, result)
    assert ledger.fail(second, "why", delay=60.0) == "scheduled"
    assert ledger.fail(second, "why", delay=60.0) == "scheduled"
    assert fleet.job(failed)["retries_left"] == "1", "one try is over, not two"
    (other,) = fleet.enqueue([3])
    (third,) = ledger.take({BULK: 2}, holding=0)
    fleet.client.zrem(f"rq:wip:{BULK}", third.entry)
    assert not ledger.finish(third, other, result), "the lease is lost"


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
@pytest.mark.parametrize("left", ["finished", "left to somebody who died"])
@pytest.mark.parametrize("present", ["announced", "tuned"])
def test_a_late_result_of_an_old_version_does_not_replace_that_of_the_present_one(
    fleet: Fleet, order: tuple[str, str], left: str, present: str
) -> None:
    announced = Model("new" if present == "announced" else "base", "none", ("cat",))
    fleet.client.set(MODEL_KEY, json.dumps(announced.to_dict()))
    if present == "tuned":
        fleet.client.set(tuned_key(PROJECT), "new")
    ledger = Ledger(fleet.client, "test", (INTERACTIVE, BULK), lease=30.0)
    first, second = (replace(fleet.request(1), model_version=version) for version in order)
    fleet.jobs.submit([first, second], interactive=False)
    taken = ledger.take({BULK: 2}, holding=0)
    for held, request in zip(taken, (first, second), strict=True):
        claimed = left != "finished" and request is second
        if claimed:
            fleet.client.sadd(waiting_key(held.id), "somebody")
            fleet.client.pexpire(waiting_key(held.id), 200)
        assert ledger.finish(held, request, Result(PROJECT, 1, request.model_version, fleet.plan, ()))
        if claimed:
            assert fleet.client.zcard(CLAIMS_KEY) == 1, "somebody waited"
            janitor = Janitor(fleet.client, "test", (INTERACTIVE, BULK))
            until(lambda janitor=janitor: janitor.tidy() or not fleet.client.zcard(CLAIMS_KEY), "its end")
    stored = json.loads(fleet.client.hget(outbox_key(PROJECT), "1") or b"{}")
    assert stored["model_version"] == "new"


def test_a_damaged_result_is_replaced(fleet: Fleet) -> None:
    fleet.client.hset(outbox_key(PROJECT), "1", "not json")
    (request,) = fleet.enqueue([1])
    ledger = Ledger(fleet.client, "test", (INTERACTIVE, BULK), lease=30.0)
    (held,) = ledger.take({BULK: 1}, holding=0)
    assert ledger.finish(held, request, Result(PROJECT, 1, VERSION, fleet.plan, ()))
    assert set(fleet.outbox()) == {1}


def test_redis_refuses_strangers(fleet: Fleet) -> None:
    url = fleet.server.url.replace(fleet.server._password, "wrong")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(url).ping()
