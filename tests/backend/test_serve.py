"""`boxlift serve` as a process: it answers, says where it listens, and drops no answer when it is told to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import PATIENCE, Served

from backend.connecting import announced_version
from backend.queueing import connect
from backend.redis_server import RedisServer
from backend.settings import Settings
from backend.studio_checks import check_backend
from worker.contract import MODEL_KEY, WORKERS_KEY, Model
from worker.errors import StudioError

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/></RectangleLabels></View>'
)
BODY = {"tasks": [{"id": 1, "data": {"image": "http://h/1.jpg"}}], "project": "5.1", "label_config": CONFIG}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def test_it_answers_and_ends(redis_server: RedisServer) -> None:
    served = Served(redis_server)
    try:
        assert httpx.get(f"{served.url}/health", trust_env=False).json()["status"] == "UP"
        setup = httpx.post(f"{served.url}/setup", json={"schema": CONFIG}, trust_env=False)
        assert setup.status_code == 503
        assert "boxlift worker" in setup.reason_phrase  # Label Studio shows people nothing else
    finally:
        log = served.end()
    assert "Traceback" not in log


def test_a_request_that_is_waiting_gets_its_answer_though_the_end_has_come(redis_server: RedisServer) -> None:
    client = connect(redis_server.url)
    client.set(MODEL_KEY, json.dumps(Model("boxlift-vgg16-0", "vgg16", ("pug", "tabby")).to_dict()))
    # One that says it lives, so that waiting is not in vain, but never takes a job.
    seconds, _ = client.time()
    client.hset(WORKERS_KEY, "mute", json.dumps({"rate": 10.0, "seen": seconds}))
    served = Served(redis_server, BOXLIFT_ANSWER_SECONDS="4")
    answers: list[Any] = []

    def ask() -> None:
        answers.append(httpx.post(f"{served.url}/predict", json=BODY, timeout=PATIENCE, trust_env=False))

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + PATIENCE
    while not client.keys("boxlift:*:waiting:*"):
        assert time.monotonic() < deadline, "nothing waits"
        time.sleep(0.05)
    log = served.end()
    asking.join(PATIENCE)
    client.close()
    (answer,) = answers
    assert answer.status_code == 200
    assert answer.json() == {"results": [[]]}
    assert "1 requests" in log


def test_an_address_that_is_taken_is_named(redis_server: RedisServer) -> None:
    served = Served(redis_server)
    try:
        env = os.environ | {"REDIS_URL": redis_server.url, "BOXLIFT_PORT": served.url.rpartition(":")[2]}
        done = subprocess.run(
            [sys.executable, "-m", "backend.cli", "serve"],
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        served.end()
    assert done.returncode == 1
    assert "BOXLIFT_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_sees_that_passwords_differ(redis_server: RedisServer) -> None:
    served = Served(redis_server, BOXLIFT_BASIC_AUTH="studio:one")
    port = int(served.url.rpartition(":")[2])
    try:
        for password, state in (("one", "ok"), ("other", "failed")):
            found, *others = check_backend(Settings(port=port, basic_auth=f"studio:{password}"))
            assert (found.state, others) == (state, [])
        assert "another BOXLIFT_BASIC_AUTH" in found.text
        with pytest.raises(StudioError, match="another BOXLIFT_BASIC_AUTH"):
            announced_version(served.url, 1, CONFIG, "studio:other")
    finally:
        served.end()
