"""Two releases whose jobs differ share a Redis: each one's workers do its own tasks, and touch no others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from backend.queueing import Jobs, connect
from backend.redis_server import RedisServer
from worker.contract import BULK, SCHEMA, ImageRef, Plan, Request, outbox_key

from .processes import ROOT, until

PROJECT, VERSION = 7, "stub-1"
STUB = Path("tests", "queue", "stub_worker.py")
NEXT = SCHEMA + 1
PHOTO = "data:image/gif;base64,R0lGODlhAQABAIAAAMjIyAAAACwAAAAAAQABAAACAkQBADs="
SUBMIT = f"""
import sys
from backend.queueing import Jobs, connect
from worker.contract import SCHEMA, ImageRef, Plan, Request
assert SCHEMA == {NEXT}
jobs = Jobs(connect(sys.argv[1]))
plan = jobs.put_plan(Plan("<View/>"))
jobs.submit([Request({PROJECT}, n, "{VERSION}", plan, (ImageRef("{PHOTO}", "image"),)) for n in (11, 12, 13)],
            interactive=False)
"""


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The same sources with another schema."""
    for name in ("backend", "worker"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / STUB).parent.mkdir(parents=True)
    shutil.copy(ROOT / STUB, tmp_path / STUB)
    contract = tmp_path / "worker" / "contract.py"
    text = contract.read_text(encoding="utf-8")
    assert text.count(f"\nSCHEMA = {SCHEMA}\n") == 1
    contract.write_text(text.replace(f"\nSCHEMA = {SCHEMA}\n", f"\nSCHEMA = {NEXT}\n"), encoding="utf-8")
    return tmp_path


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def command(root: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """A script of one of the releases, and the environment that it is found in."""
    return [sys.executable, *arguments], os.environ | {"PYTHONPATH": str(root)}


def worked(root: Path, server: RedisServer, client: redis.Redis, outbox: str, tasks: set[int]) -> None:
    """One release's worker, until it has done these tasks."""
    arguments, env = command(root, str(root / STUB), json.dumps({"url": server.url}))
    process = subprocess.Popen(arguments, env=env, cwd=root)
    try:
        until(lambda: {int(task) for task in client.hkeys(outbox)} >= tasks, f"{tasks} in {outbox}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_each_release_does_its_own_tasks(server: RedisServer, next_release: Path) -> None:
    client = connect(server.url)
    jobs = Jobs(client)
    plan = jobs.put_plan(Plan("<View/>"))
    ours = [Request(PROJECT, n, VERSION, plan, (ImageRef(PHOTO, "image"),)) for n in (1, 2, 3)]
    jobs.submit(ours, interactive=False)
    arguments, env = command(next_release, "-c", SUBMIT, server.url)
    subprocess.run(arguments, env=env, cwd=next_release, check=True)
    theirs = outbox_key(PROJECT).replace(f":{SCHEMA}:", f":{NEXT}:", 1)

    worked(next_release, server, client, theirs, {11, 12, 13})
    waiting = {key.decode() for key in client.lrange(f"rq:queue:{BULK}", 0, -1)}
    assert waiting == {request.job_id for request in ours}, "the next release's worker took this one's jobs"
    assert not client.exists(outbox_key(PROJECT))

    worked(ROOT, server, client, outbox_key(PROJECT), {1, 2, 3})
    assert {int(task) for task in client.hkeys(theirs)} == {11, 12, 13}
    assert {int(task) for task in client.hkeys(outbox_key(PROJECT))} == {1, 2, 3}
    client.close()
