"""Upgrading under load: workers and backends are replaced one by one while tasks come in. Nothing is lost."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import torch
from torchvision.models import resnet18

from backend.demo.photos import photos
from worker.contract import FAILURES_KEY, SCHEMA, STATS_KEY, Result, outbox_key

from .processes import PATIENCE, ask, deployment, until

PROJECT, AT_ONCE, PAUSE = 5, 2, 1.0
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/></RectangleLabels></View>'
)
PHOTOS = [photo.path for photo in photos()]
ROOTS = str(PHOTOS[0].parent)


class Studio(threading.Thread):
    """Asks for predictions as Label Studio does until it has `enough`, and asks again where nobody answered."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(name="studio")
        self.addresses = addresses
        self.enough = threading.Event()
        self.asked = 0
        self.statuses: set[int] = set()

    def run(self) -> None:
        while not self.enough.is_set():
            tasks = [self._task(self.asked + number) for number in range(1, AT_ONCE + 1)]
            body = {"tasks": tasks, "project": f"{PROJECT}.1", "label_config": CONFIG, "params": {}}
            while not self._answered(body):
                threading.Event().wait(0.1)
            self.asked += AT_ONCE
            threading.Event().wait(PAUSE)

    def _answered(self, body: dict[str, Any]) -> bool:
        for address in list(self.addresses):
            try:
                answer = httpx.post(f"{address}/predict", json=body, timeout=PATIENCE, trust_env=False)
            except httpx.TransportError:
                continue
            self.statuses.add(answer.status_code)
            return answer.status_code == 200
        return False

    @staticmethod
    def _task(number: int) -> dict[str, Any]:
        return {"id": number, "data": {"image": str(PHOTOS[number % len(PHOTOS)])}}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_is_replaced_while_tasks_come_in(tmp_path: Path) -> None:
    with deployment(tmp_path) as made, redis.Redis.from_url(made.server.url) as client:
        settings = {"BOXLIFT_IMAGE_ROOTS": ROOTS, "BOXLIFT_ANSWER_TASKS": "0"}
        workers = [made.worker(**settings) for _ in range(2)]
        backends = [made.backend(**settings)[:2] for _ in range(2)]
        until(lambda: ask(backends[0][1], "/ready").status_code == 200, "a worker")

        def done() -> int:
            return int(client.hlen(outbox_key(PROJECT)))

        studio = Studio([url for _, url in backends])
        studio.start()
        for number in range(2):
            before = done()
            until(lambda before=before: done() > before, "some progress")
            new = made.worker(**settings)
            made.stop(workers[number])
            workers[number] = new
            process, _ = backends[number]
            made.stop(process)
            process, url, _ = made.backend(**settings)
            studio.addresses[number] = url
        before = done()
        until(lambda: done() > before, "progress of what is new")
        studio.enough.set()
        studio.join(PATIENCE)
        assert not studio.is_alive()
        assert studio.statuses == {200}
        until(lambda: done() == studio.asked, "all results")
        results = [Result.from_dict(json.loads(text)) for text in client.hvals(outbox_key(PROJECT))]
        assert {result.task for result in results} == set(range(1, studio.asked + 1))
        assert all(image.error is None for result in results for image in result.images)
        assert len({result.model_version for result in results}) == 1
        stats = {name.decode(): float(value) for name, value in client.hgetall(STATS_KEY).items()}
        assert sum(value for name, value in stats.items() if name.endswith((":failed", ":retried"))) == 0
        assert client.llen(FAILURES_KEY) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_results_keep_the_version_of_the_worker_that_made_them(tmp_path: Path) -> None:
    """The same task under another model is another job with another version; the first one's stays as it was."""
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), tmp_path / "other.pth")
    models = ({"BOXLIFT_NETWORK": "resnet18", "BOXLIFT_WEIGHTS": str(tmp_path / "other.pth")}, {})
    task = {"id": 1, "data": {"image": str(PHOTOS[0])}}
    body = {"tasks": [task], "project": f"{PROJECT}.1", "label_config": CONFIG, "params": {}}
    versions = []
    with deployment(tmp_path) as made, redis.Redis.from_url(made.server.url) as client:
        settings = {"BOXLIFT_IMAGE_ROOTS": ROOTS, "BOXLIFT_ANSWER_TASKS": "0"}
        _, url, _ = made.backend(**settings)
        for model in models:
            worker = made.worker(**settings, **model)
            until(lambda: ask(url, "/ready").status_code == 200, "the worker")
            name = model.get("BOXLIFT_NETWORK", "efficientnet_lite0")
            until(lambda name=name: name in ask(url, "/versions").json()["versions"][0], "its version")
            assert httpx.post(f"{url}/predict", json=body, timeout=PATIENCE, trust_env=False).status_code == 200
            done = len(versions) + 1
            until(lambda done=done: len(_finished(client)) == done, "the result")
            versions.append(ask(url, "/versions").json()["versions"][0])
            made.stop(worker)
            until(lambda: ask(url, "/ready").json()["state"] == "no workers", "the worker to be gone")
        assert len(set(versions)) == 2
        assert sorted(_finished(client)) == sorted(versions)


def _finished(client: redis.Redis) -> list[str]:
    """The versions of all results of the project's task, delivered or not."""
    found = []
    for key in client.scan_iter(f"rq:results:bl{SCHEMA}-{PROJECT}-1-*"):
        [(_, fields)] = client.xrevrange(key, count=1)
        found.append(json.loads(base64.b64decode(fields[b"return_value"]))["model_version"])
    return found
