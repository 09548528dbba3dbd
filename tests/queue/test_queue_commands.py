"""What people see of the queue and can do about it: status, retry, cancel, and the worker command itself."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fleet import PROJECT, VERSION, Fleet, until
from PIL import Image
from stub_worker import GOOD, RAISES

from backend.cli import main
from backend.queueing import Jobs
from worker.contract import (
    BULK,
    CLAIMED_KEY,
    CLAIMS_KEY,
    INTERACTIVE,
    Plan,
    Request,
    outbox_key,
    sending_key,
)
from worker.stats import Pace


@pytest.fixture
def boxlift(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REDIS_URL", fleet.server.url)

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(main, list(arguments), catch_exceptions=False)

    return call


def poisoned(fleet: Fleet, tasks: range) -> list[Request]:
    from fleet import photo

    requests = fleet.enqueue(tasks, photo(RAISES))
    until(lambda: all(fleet.job(r).get("status") == "failed" for r in requests), "the failures")
    return requests


def test_status(fleet: Fleet, boxlift: Any) -> None:
    empty = boxlift("status")
    assert empty.exit_code == 0
    assert "boxlift worker" in empty.output, "it says what to do where no worker lives"
    fleet.enqueue(range(2000, 2010))
    assert json.loads(boxlift("status", "--json").output)["queues"][1]["waiting"] == 10
    fleet.start(1)
    until(fleet.nothing_left, "empty queues")
    poisoned(fleet, range(3))
    state = json.loads(boxlift("status", "--json").output)
    queues = {queue["name"]: queue for queue in state["queues"]}
    assert queues[BULK]["failed"] == 3
    assert queues[INTERACTIVE]["waiting"] == 0
    assert len(state["workers"]) == 1
    assert state["undelivered"] == {str(PROJECT): 10}
    assert {entry["task"] for entry in state["failures"]} == {0, 1, 2}
    assert all("a poisonous photo" in entry["reason"] for entry in state["failures"])
    text = boxlift("status").output
    assert "a poisonous photo" in " ".join(text.split())
    assert "Traceback" not in text


def test_status_without_redis(fleet: Fleet, boxlift: Any) -> None:
    fleet.server._end()
    answer = boxlift("status")
    assert answer.exit_code == 1
    assert "REDIS_URL" in answer.output
    assert fleet.server._password not in answer.output
    fleet.server.start()


def test_retry(fleet: Fleet, boxlift: Any) -> None:
    fleet.start(1)
    requests = poisoned(fleet, range(3))
    ended = [fleet.job(request)["ended"] for request in requests]
    assert boxlift("retry").exit_code == 2, "it must be told which"
    assert boxlift("retry", requests[0].job_id).exit_code == 0
    until(lambda: fleet.job(requests[0]).get("ended", ended[0]) != ended[0], "the second failure")
    assert fleet.job(requests[0])["tries"] == "3", "all tries again"
    assert fleet.job(requests[1])["ended"] == ended[1]
    assert boxlift("retry", "--project", "99").output.startswith("0 of 0")
    assert boxlift("retry", "--project", str(PROJECT)).output.startswith("3 of 3")
    assert boxlift("retry", "bl1-1-1-nothing").exit_code == 1
    until(lambda: all(fleet.job(r).get("ended", e) != e for r, e in zip(requests, ended, strict=True)), "failures")


def test_retry_of_tasks_whose_images_could_not_be_used(fleet: Fleet, boxlift: Any, tmp_path: Path) -> None:
    fleet.start(1, roots=[str(tmp_path)])
    (mended, lasting) = [fleet.request(n, str(tmp_path / f"{n}.png")) for n in (1, 2)]
    for request in (mended, lasting):
        (tmp_path / f"{request.task}.png").write_text("no picture")
    fleet.jobs.submit([mended, lasting], interactive=False)
    until(lambda: len(fleet.failures()) == 2, "the failures")
    assert {fleet.job(request)["status"] for request in (mended, lasting)} == {"finished"}
    Image.new("RGB", (6, 4), GOOD).save(tmp_path / "1.png")
    assert boxlift("retry", "--project", "99").output.startswith("0 of 0")
    assert boxlift("retry", "--project", str(PROJECT)).output.startswith("2 of 2")
    until(lambda: [entry["task"] for entry in fleet.failures()] == [2], "the one that is not mended, once")
    until(fleet.nothing_left, "empty queues")
    assert fleet.outbox()[1].images[0].detections
    assert "not a picture" in (fleet.outbox()[2].images[0].error or "")
    assert boxlift("retry", mended.job_id).exit_code == 1, "nothing is wrong with it any more"
    assert boxlift("retry", lasting.job_id).exit_code == 0


def test_status_watch(fleet: Fleet) -> None:
    """On a terminal, until Ctrl-C: what changes shows, Redis's absence too."""
    fleet.start(1, seconds=0.05)
    fleet.enqueue(range(400))
    ours, theirs = pty.openpty()
    environment = os.environ | {"REDIS_URL": fleet.server.url, "TERM": "xterm", "COLUMNS": "160", "LINES": "60"}
    command = [sys.executable, "-m", "backend.cli", "status", "--watch"]
    watching = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown: list[bytes] = []

    def read() -> None:
        with suppress(OSError):
            while part := os.read(ours, 1 << 16):
                shown.append(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        until(lambda: b"All done in about" in b"".join(shown), "the time that is left")
        fleet.client.delete(f"rq:queue:{BULK}")
        until(fleet.nothing_left, "empty queues")
        before = len(shown)
        until(lambda: b"tasks done" in b"".join(shown[before + 1 :]), "another look")
        fleet.server._end()
        until(lambda: b"Redis cannot be reached" in b"".join(shown), "the absence of Redis")
        fleet.server.start()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
        assert b"Traceback" not in b"".join(shown)
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)


def test_time_left_follows_from_what_is_really_done(fleet: Fleet, boxlift: Any, tmp_path: Path) -> None:
    """Computing takes no time here, and loading does: the speed while computing would promise too much."""
    pace = Pace()
    assert pace.rate(at=100.0) == 0.0
    pace.busy(at=100.0)
    for second in range(101, 111):
        pace.ended(at=float(second))
    assert pace.rate(at=110.0) == 1.0, "10 tasks in 10 s"
    for second in range(111, 221):
        pace.ended(at=float(second))
        pace.ended(at=float(second))
    assert 1.9 < pace.rate(at=220.0) < 2.1, "of the last minute"
    pace.idle()
    assert pace.rate(at=300.0) == 0.0
    fleet.enqueue(range(40))
    seconds, _ = fleet.client.time()
    about = {"seen": seconds, "rate": 1000.0, "pace": 2.0}
    fleet.client.hset("boxlift:1:workers", "one", json.dumps(about))
    state = json.loads(boxlift("status", "--json").output)
    assert (state["rate"], state["pace"], state["eta"]) == (1000.0, 2.0, 20.0)


def test_cancel(fleet: Fleet, boxlift: Any) -> None:
    mine = fleet.enqueue(range(10))
    others = [Request(PROJECT * 10, task, VERSION, fleet.plan, mine[0].images) for task in range(3)]
    fleet.jobs.submit(others, interactive=False)
    assert boxlift("cancel", "--project", str(PROJECT), "--task", "4", "--task", "5").output.startswith("2 jobs")
    assert not fleet.client.exists(f"rq:job:{mine[4].job_id}")
    order = [key.decode() for key in fleet.client.lrange(f"rq:queue:{BULK}", 0, -1)]
    assert order == [r.job_id for r in [*mine[:4], *mine[6:], *others]], "the others keep their places"
    fleet.client.hset(sending_key(PROJECT), mapping={"1": "a result that is being sent", "2": "another"})
    fleet.client.hset(CLAIMED_KEY, mapping={f"{PROJECT}:1:a": "left to somebody", f"{PROJECT}0:1:b": "of another"})
    fleet.client.zadd(CLAIMS_KEY, {f"{PROJECT}:1:a": 2**40, f"{PROJECT}0:1:b": 2**40})
    assert boxlift("cancel", "--project", str(PROJECT), "--task", "1").output.startswith("1 jobs")
    assert fleet.client.hkeys(sending_key(PROJECT)) == [b"2"]
    assert boxlift("cancel", "--project", str(PROJECT)).output.startswith("7 jobs")
    assert not fleet.client.exists(sending_key(PROJECT)), "it would be put back into the outbox"
    assert fleet.client.hkeys(CLAIMED_KEY) == [f"{PROJECT}0:1:b".encode()]
    fleet.start(1)
    until(lambda: fleet.client.hlen(outbox_key(PROJECT * 10)) == 3, "the other project's results")
    assert fleet.delivered_to() == set()
    until(fleet.nothing_left, "empty queues")


def test_deleted_tasks_leave_the_queue(fleet: Fleet) -> None:
    from backend.app import create_app
    from backend.settings import Settings

    mine = fleet.enqueue(range(1, 11))
    client = create_app(Settings(redis_url=fleet.server.url)).test_client()
    event = {"action": "TASKS_DELETED", "tasks": [{"id": 3}, {"id": 4}, {"id": "x"}], "project": {"id": PROJECT}}
    assert client.post("/webhook", json=event).status_code == 201
    until(lambda: fleet.client.llen(f"rq:queue:{BULK}") == 8, "the jobs' end")
    assert not fleet.client.exists(f"rq:job:{mine[2].job_id}")
    assert client.post("/webhook", json=event | {"tasks": "nonsense"}).status_code == 201
    assert client.post("/webhook", json=event | {"project": None}).status_code == 201


def test_cancel_what_is_being_done(fleet: Fleet, boxlift: Any) -> None:
    fleet.start(1, seconds=1.0)
    requests = fleet.enqueue(range(2))
    until(lambda: fleet.running() == 2, "work on one, the other at hand")
    assert boxlift("cancel", "--project", str(PROJECT)).output.startswith("2 jobs")
    fleet.start(1, seconds=0.0)
    fleet.jobs.submit([fleet.request(100)], interactive=True)
    until(lambda: 100 in fleet.delivered_to(), "later work")
    until(fleet.nothing_left, "empty queues")
    until(lambda: fleet.stats().get(f"jobs:{BULK}:lost", 0) > 0, "results that were thrown away")
    assert fleet.delivered_to() == {100}
    assert not any(fleet.client.exists(f"rq:job:{request.job_id}") for request in requests)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_worker_command_in_a_burst(fleet: Fleet, tmp_path: Any) -> None:
    """The real command with the real small network: two processes, every task once, then status 0."""
    pictures = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((80, 60), 50).convert("RGB").save(path)
        pictures.append(path)
    command = [sys.executable, "-m", "backend.cli", "worker", "--network", "efficientnet_lite0", "--device", "cpu"]
    environment = os.environ | {"REDIS_URL": fleet.server.url, "BOXLIFT_IMAGE_ROOTS": str(tmp_path)}
    plan = fleet.jobs.put_plan(Plan("<View/>"))
    requests = [
        Request(PROJECT, n, "unknown", plan, (fleet.request(n, str(p)).images)) for n, p in enumerate(pictures)
    ]
    fleet.jobs.submit(requests, interactive=False)
    ended = subprocess.run([*command, "--burst"], env=environment, check=False, timeout=800, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    results = fleet.wait_for_all(requests)
    assert all(result.images[0].error is None for result in results.values()), results
    assert all(result.images[0].width == 80 for result in results.values())
    model = Jobs(fleet.client).model()
    assert model is not None
    assert {result.model_version for result in results.values()} == {model.version}
    assert fleet.server._password not in ended.stderr.decode()


def test_a_network_that_cannot_be_had_ends_the_command(fleet: Fleet, tmp_path: Any) -> None:
    command = [sys.executable, "-m", "backend.cli", "worker", "--weights", str(tmp_path / "nothing.pth")]
    environment = os.environ | {"REDIS_URL": fleet.server.url}
    ended = subprocess.run(command, env=environment, check=False, timeout=280, capture_output=True)
    assert ended.returncode == 1
    assert "nothing.pth" in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()


def test_a_supervisor_replaces_a_killed_worker_and_outlives_it(fleet: Fleet) -> None:
    (supervisor,) = fleet.start(1, supervised=2, seconds=0.05, lease=30.0)
    requests = fleet.enqueue(range(60))
    until(lambda: len(fleet.delivered_to()) > 5, "some progress")
    names = [name.decode() for name in fleet.client.hkeys("boxlift:1:workers")]
    assert len(names) == 2
    os.kill(int(names[0].split("-")[-2]), signal.SIGKILL)
    fleet.wait_for_all(requests)
    until(fleet.nothing_left, "empty queues: the leases of 30 s are not waited for", seconds=60)
    until(lambda: len(fleet.client.hkeys("boxlift:1:workers")) == 2, "another worker in place of the killed one")
    assert supervisor.poll() is None
    supervisor.terminate()
    assert supervisor.wait(60) == 0


def test_workers_end_with_their_supervisor(fleet: Fleet) -> None:
    from fleet import kill

    (supervisor,) = fleet.start(1, supervised=1, lease=3.0)
    (name,) = [name.decode() for name in fleet.client.hkeys("boxlift:1:workers")]
    kill(supervisor)
    until(lambda: not fleet.client.hexists("boxlift:1:workers", name), "the worker's farewell")
