"""Many tasks: what is posted, what it costs, and that nothing grows.

Lengths are for every day; BOXLIFT_LONG_TESTS=1 runs 10,000 posted tasks, 30,000 worked off, 100,000 for memory.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psutil
import pytest
from fleet import Fleet, photo, until

from backend.app import create_app
from backend.settings import Settings
from worker.contract import BULK, outbox_key

LONG = bool(os.environ.get("BOXLIFT_LONG_TESTS"))
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat"/></RectangleLabels></View>'
)


def test_tasks_posted_a_thousand_at_a_time(fleet: Fleet) -> None:
    """Through the real /predict, with a worker at work: each request is answered at once, each task done once."""
    requests = 10 if LONG else 3
    fleet.start(1, seconds=0.0)
    client = create_app(Settings(redis_url=fleet.server.url)).test_client()
    slowest = 0.0
    for number in range(requests):
        tasks = [{"id": number * 1000 + n, "data": {"image": photo()}} for n in range(1, 1001)]
        body: dict[str, Any] = {"tasks": tasks, "project": "7.1795471504", "label_config": CONFIG, "params": {}}
        start = time.monotonic()
        answer = client.post("/predict", json=body)
        slowest = max(slowest, time.monotonic() - start)
        assert answer.status_code == 200
        assert len(answer.get_json()["results"]) == 1000
    assert slowest < 60, "an answer takes a fraction of a second; this only catches one that waits for the workers"
    until(lambda: fleet.client.hlen(outbox_key(7)) == 1000 * requests, "all results")
    until(fleet.nothing_left, "empty queues")
    until(lambda: fleet.stats()[f"jobs:{BULK}:finished"] == 1000 * requests, "the last counters")


def test_above_the_limit_503_says_when_to_come_back(fleet: Fleet) -> None:
    fleet.start(1, seconds=0.5)
    client = create_app(Settings(redis_url=fleet.server.url, queue_limit=50)).test_client()
    tasks = [{"id": n, "data": {"image": photo()}} for n in range(1, 61)]
    body = {"tasks": tasks, "project": "7.1", "label_config": CONFIG, "params": {}}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert fleet.client.llen(f"rq:queue:{BULK}") == 0
    assert client.post("/predict", json=body | {"tasks": tasks[:40]}).status_code == 200


def test_metrics_tell_what_happened(fleet: Fleet) -> None:
    fleet.start(1, seconds=0.0)
    requests = fleet.enqueue(range(40)) + fleet.enqueue([50], "data:image/png;base64,AAAA")
    fleet.wait_for_all(requests)
    until(lambda: fleet.stats().get("images:failed") == 1, "the counters")
    client = create_app(Settings(redis_url=fleet.server.url)).test_client()
    answer = client.get("/metrics")
    assert answer.status_code == 200
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert lines["boxlift_redis_up"] == "1.0"
    assert lines[f'boxlift_jobs_total{{outcome="finished",queue="{BULK}"}}'] == "41.0"
    assert lines["boxlift_images_failed_total"] == "1.0"
    assert lines["boxlift_workers"] == "1.0"
    assert lines['boxlift_undelivered_results{project="7"}'] == "41.0"
    assert lines[f'boxlift_job_latency_seconds_count{{queue="{BULK}"}}'] == "41.0"
    assert lines[f'boxlift_job_latency_seconds_bucket{{le="+Inf",queue="{BULK}"}}'] == "41.0"
    assert fleet.server._password not in answer.text
    fleet.server._end()
    assert "boxlift_redis_up 0.0" in client.get("/metrics").text
    fleet.server.start()


@pytest.mark.slow
def test_memory_of_a_worker_stays_flat(fleet: Fleet) -> None:
    """Shortened: some thousand jobs of no computing time at all, as many as a slow network does in two hours."""
    part, parts = (25_000, 4) if LONG else (2_500, 4)
    (worker,) = fleet.start(1, seconds=0.0)
    process = psutil.Process(worker.pid)
    sizes = []
    for number in range(parts):
        fleet.enqueue(range(number * part, (number + 1) * part))
        until(lambda number=number: fleet.client.hlen(outbox_key(7)) == (number + 1) * part, "one part", 900)
        sizes.append(process.memory_info().rss / 1e6)
    growth = (sizes[-1] - sizes[0]) / (part * (parts - 1))
    assert growth * 1000 < 1.0, f"{growth * 1000:.2f} MB for every 1,000 jobs: {sizes}"
    assert process.num_fds() < 100
    assert process.num_threads() < 50
