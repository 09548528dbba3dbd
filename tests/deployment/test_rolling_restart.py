"""Upgrading under load: workers and backends are replaced one by one while tasks come in. Nothing is lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import redis

from backend.demo.photos import photos
from worker.contract import FAILURES_KEY, STATS_KEY, Result, outbox_key

from .processes import PATIENCE, ask, deployment, until

PROJECT, TASKS, AT_ONCE = 5, 120, 4
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/></RectangleLabels></View>'
)
PHOTOS = [photo.path for photo in photos()]
ROOTS = str(PHOTOS[0].parent)


class Studio(threading.Thread):
    """Asks for predictions as Label Studio does, and asks again where nobody answered."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(name="studio")
        self.addresses = addresses
        self.asked = 0
        self.refused = 0
        self.statuses: set[int] = set()

    def run(self) -> None:
        for first in range(1, TASKS + 1, AT_ONCE):
            tasks = [self._task(number) for number in range(first, first + AT_ONCE)]
            body = {"tasks": tasks, "project": f"{PROJECT}.1", "label_config": CONFIG, "params": {}}
            while not self._answered(body):
                self.refused += 1
            self.asked += AT_ONCE
            threading.Event().wait(0.05)

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
        assert done() < TASKS, "all was done before anything was replaced: the test tests nothing"
        studio.join(PATIENCE)
        assert studio.asked == TASKS
        assert studio.statuses == {200}
        until(lambda: done() == TASKS, "all results")
        results = [Result.from_dict(json.loads(text)) for text in client.hvals(outbox_key(PROJECT))]
        assert {result.task for result in results} == set(range(1, TASKS + 1))
        assert all(image.error is None for result in results for image in result.images)
        assert len({result.model_version for result in results}) == 1
        stats = {name.decode(): float(value) for name, value in client.hgetall(STATS_KEY).items()}
        assert sum(value for name, value in stats.items() if name.endswith((":failed", ":retried"))) == 0
        assert client.llen(FAILURES_KEY) == 0


def test_results_keep_the_version_of_the_worker_that_made_them(tmp_path: Path) -> None:
    """The same tasks under another model: another version, another job, and the old results as they were."""
    with deployment(tmp_path) as made, redis.Redis.from_url(made.server.url) as client:
        settings = {"BOXLIFT_IMAGE_ROOTS": ROOTS, "BOXLIFT_ANSWER_TASKS": "0"}
        _, url, _ = made.backend(**settings)
        versions = []
        task = {"id": 1, "data": {"image": str(PHOTOS[0])}}
        body = {"tasks": [task], "project": f"{PROJECT}.1", "label_config": CONFIG, "params": {}}
        kept: list[bytes] = []
        for precision in ("float32", "bfloat16"):
            worker = made.worker(BOXLIFT_PRECISION=precision, **settings)
            until(lambda: ask(url, "/ready").status_code == 200, "the worker")
            version = ask(url, "/versions").json()["versions"][0]
            until(lambda v=version: ask(url, "/versions").json()["versions"][0] == v, "its version")
            assert httpx.post(f"{url}/predict", json=body, timeout=PATIENCE, trust_env=False).status_code == 200
            until(lambda: client.hexists(outbox_key(PROJECT), "1"), "the result")
            text = client.hget(outbox_key(PROJECT), "1")
            assert text is not None
            versions.append(json.loads(text)["model_version"])
            assert versions[-1] == version
            kept.append(text)
            client.hdel(outbox_key(PROJECT), "1")
            made.stop(worker)
            until(lambda: ask(url, "/ready").json()["state"] == "no workers", "the worker to be gone")
        keys = [key.decode() for key in client.scan_iter("rq:job:bl1-*")]
        assert len(set(versions)) == len(keys)
