"""Who waits for a result gets it, or the outbox does: also where the one who waited is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from fleet import PROJECT, Fleet, kill, photo, until
from stub_worker import SLEEPS

from backend.queueing import Jobs, connect
from worker.contract import CLAIMED_KEY, CLAIMS_KEY, Result, outbox_key, waiting_key


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


def test_the_result_of_who_waited_and_died_is_delivered(fleet: Fleet) -> None:
    """Killed while it waits, and the job is finished before anybody can know."""
    fleet.start(1, seconds=0.5)
    request = fleet.request(1)
    waiter = ask_and_wait(fleet, 1)
    until(lambda: fleet.client.exists(waiting_key(request.job_id)), "one who waits")
    kill(waiter)
    until(lambda: fleet.job(request)["status"] == "finished", "the result")
    fleet.wait_for_all([request])
    assert not fleet.client.exists(CLAIMS_KEY)
    assert not fleet.client.exists(CLAIMED_KEY)


def test_the_result_of_who_answered_and_died_is_delivered(fleet: Fleet) -> None:
    """Killed between reading what was finished before and answering with it: here it waits for another task."""
    fleet.start(1)
    done = fleet.request(1)
    fleet.jobs.submit([done], interactive=False)
    fleet.wait_for_all([done])
    waiter = ask_and_wait(fleet, 1, 2, colour=SLEEPS)
    until(lambda: not fleet.delivered_to(), "the result in the hands of the one who answers")
    kill(waiter)
    until(lambda: 1 in fleet.delivered_to(), "the result, to be delivered")


def test_who_answers_takes_it_for_good(fleet: Fleet) -> None:
    fleet.start(1)
    request = fleet.request(1)
    assert set(fleet.jobs.submit([request], interactive=True, wait=60)) == {1}
    assert set(fleet.jobs.submit([request], interactive=True, wait=60)) == {1}
    assert not fleet.client.exists(CLAIMS_KEY)
    assert not fleet.client.exists(CLAIMED_KEY)
    assert not fleet.delivered_to()


def ask_and_wait(fleet: Fleet, *tasks: int, colour: tuple[int, int, int] | None = None) -> subprocess.Popen[bytes]:
    """A backend in a process of its own that waits 8 s for tasks, the last of them with a photo of this colour."""
    urls = [None] * (len(tasks) - 1) + [photo(colour) if colour else None]
    requests = [fleet.request(task, url).to_dict() for task, url in zip(tasks, urls, strict=True)]
    code = (
        "import json, sys; from backend.queueing import Jobs, connect; from worker.contract import Request\n"
        "requests = [Request.from_dict(one) for one in json.loads(sys.argv[2])]\n"
        "Jobs(connect(sys.argv[1])).submit(requests, interactive=True, wait=8)"
    )
    return subprocess.Popen([sys.executable, "-c", code, fleet.server.url, json.dumps(requests)])
