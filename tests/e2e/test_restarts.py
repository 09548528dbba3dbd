"""Whatever is restarted or dies, every task ends with exactly one prediction."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis

from backend.demo.photos import photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from worker.contract import BULK, INTERACTIVE, outbox_key

from .conftest import NETWORK
from .project import SECONDS, NewProject

FILES = [photo.path for photo in photos()]


@pytest.fixture(autouse=True)
def _all_running(stack: Stack) -> Iterator[None]:
    """Leaves everything running for the next test."""
    yield
    if stack.redis.pid is None:
        stack.redis.start()
    if stack.studio.process is None or not stack.studio.process.running:
        stack.studio.start().wait()
    if stack.worker is None or not stack.worker.running:
        stack.start_worker(NETWORK)
    if stack.backend is None or not stack.backend.running:
        stack.start_backend()
    stack.wait()


def waiting(stack: Stack) -> int:
    """Number of tasks in the queues."""
    with redis.Redis.from_url(stack.redis.url) as client:
        return sum(int(client.llen(f"rq:queue:{name}")) for name in (INTERACTIVE, BULK))


def test_tasks_wait_for_a_worker_and_are_pushed(stack: Stack, new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    tasks = studio.upload(project.id, FILES)
    assert stack.worker is not None
    stack.worker.stop()
    project.retrieve()
    assert project.predictions() == {}
    assert waiting(stack) == len(tasks)
    stack.start_worker(NETWORK)
    # Nobody asks again: what Label Studio gets now was pushed.
    stored = project.wait_for(tasks)
    assert {task: len(found) for task, found in stored.items()} == dict.fromkeys(tasks, 1)
    assert {item["model_version"] for found in stored.values() for item in found} == {project.version}


def test_worker_killed_in_the_middle(stack: Stack, new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    tasks = studio.upload(project.id, FILES)
    project.retrieve()
    assert stack.worker is not None
    stack.worker.kill()
    assert len(project.predictions()) < len(tasks), "the worker was done before it could be killed"
    stack.start_worker(NETWORK)
    stored = project.wait_for(tasks)
    time.sleep(2.0)  # a second copy would come from a job that ran twice
    assert {task: len(found) for task, found in project.predictions().items()} == dict.fromkeys(tasks, 1)
    assert {item["model_version"] for found in stored.values() for item in found} == {project.version}


def test_backend_comes_back(stack: Stack, new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    [task] = studio.upload(project.id, FILES[:1])
    assert stack.backend is not None
    stack.backend.kill()
    assert studio.task(task)["predictions"] == []
    stack.start_backend()
    stack.wait()
    [prediction] = studio.task(task)["predictions"]
    assert prediction["model_version"] == project.version


def test_redis_crashes_with_tasks_in_it(stack: Stack, new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    tasks = studio.upload(project.id, FILES)
    assert stack.worker is not None
    stack.worker.stop()
    project.retrieve()
    assert waiting(stack) == len(tasks)
    time.sleep(1.5)  # its append-only file is written out every second
    assert stack.redis.pid is not None
    os.kill(stack.redis.pid, signal.SIGKILL)
    stack.redis.start()
    assert waiting(stack) == len(tasks)
    stack.start_worker(NETWORK)
    project.wait_for(tasks)


def test_label_studio_is_away_when_the_boxes_are_ready(
    stack: Stack, new_project: NewProject, studio: StudioApi, image_server: str
) -> None:
    project = new_project()
    tasks = studio.import_tasks(project.id, [{"image": f"{image_server}/{file.name}"} for file in FILES])
    assert stack.worker is not None
    stack.worker.stop()
    project.retrieve()
    stack.studio.stop()
    stack.start_worker(NETWORK)
    with redis.Redis.from_url(stack.redis.url) as client:
        deadline = time.monotonic() + SECONDS
        while client.hlen(outbox_key(project.id)) < len(tasks):
            assert time.monotonic() < deadline, "the worker's results did not reach the outbox"
            time.sleep(0.2)
    stack.studio.start().wait()
    stored = project.wait_for(tasks)
    assert {task: len(found) for task, found in stored.items()} == dict.fromkeys(tasks, 1)
