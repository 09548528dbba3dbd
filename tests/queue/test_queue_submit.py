"""Tasks to jobs: once each, urgent ones first, never more than the limit, and never a wait in vain."""

from __future__ import annotations

import json
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from fleet import PROJECT, VERSION, Fleet, photo, until
from stub_worker import RAISES

from backend.queueing import Jobs, connect
from worker.contract import (
    BULK,
    INTERACTIVE,
    LOCALIZE,
    MODEL_KEY,
    ImageRef,
    Model,
    Plan,
    Request,
    Result,
    model_key,
    outbox_key,
    waiting_key,
)
from worker.errors import ContractError, QueueError, QueueFullError


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
    jobs.submit([fleet.request(8)], interactive=False)
    assert len(waiting(fleet, BULK)) == 9


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


def test_every_key_that_outlives_its_job_has_an_end(fleet: Fleet) -> None:
    fleet.start(1)
    requests = fleet.enqueue(range(5)) + fleet.enqueue([9], photo(RAISES))
    fleet.jobs.submit([fleet.request(20)], interactive=True, wait=60)
    until(lambda: fleet.nothing_left(), "empty queues")
    until(lambda: fleet.job(requests[-1]).get("status") == "failed", "the failure")
    for key in (
        fleet.client.keys("rq:job:*") + fleet.client.keys("rq:results:*") + fleet.client.keys("boxlift:1:waiting:*")
    ):
        assert fleet.client.pttl(key) > 0, key
    assert fleet.client.ttl("boxlift:1:plan:" + fleet.plan) > 0


def test_answer_or_outbox_never_both_never_neither(fleet: Fleet) -> None:
    """Waits that end just when results come: each is answered by the one who waits, or left for delivery."""
    fleet.start(1, seconds=0.002)
    fleet.jobs.submit([fleet.request(10_000)], interactive=True, wait=60)
    answered: dict[int, Result] = {}
    lock = threading.Lock()

    def ask(task: int) -> None:
        jobs = Jobs(connect(fleet.server.url))
        ready = jobs.submit([fleet.request(task)], interactive=True, wait=0.002 * 1.35 ** (task % 24))
        jobs.client.close()
        with lock:
            answered.update(ready)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(400)))
    until(fleet.nothing_left, "empty queues")
    until(lambda: len(answered.keys() | fleet.delivered_to()) >= 400, "a place for every result")
    assert answered.keys() & fleet.delivered_to() == set()
    assert answered, "none was in time: the test tests nothing"
    assert fleet.delivered_to(), "all were in time: the test tests nothing"


def test_two_who_wait_for_one_job(fleet: Fleet) -> None:
    fleet.start(1, seconds=1.0)
    request = fleet.request(1)
    with ThreadPoolExecutor(2) as pool:
        short = pool.submit(Jobs(fleet.client).submit, [request], interactive=True, wait=0.2)
        long = pool.submit(Jobs(fleet.client).submit, [request], interactive=True, wait=60)
        assert short.result() == {}
        assert set(long.result()) == {1}
    assert not fleet.client.exists(outbox_key(PROJECT)), "the one who waited on has it"


def test_who_waited_and_died_is_not_waited_for(fleet: Fleet) -> None:
    request = fleet.request(1)
    fleet.jobs.submit([request], interactive=True)
    fleet.client.sadd(waiting_key(request.job_id), "a backend that was killed")
    fleet.client.pexpire(waiting_key(request.job_id), 200)
    time.sleep(0.3)
    fleet.start(1)
    fleet.wait_for_all([request])


def test_redis_refuses_strangers(fleet: Fleet) -> None:
    url = fleet.server.url.replace(fleet.server._password, "wrong")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(url).ping()
