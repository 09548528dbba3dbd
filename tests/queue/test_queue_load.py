"""Many tasks: what is posted, what it costs, and that nothing grows.

Lengths are for every day; docs/testing.md has those with BOXLIFT_LONG_TESTS=1.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from fleet import LONG, Fleet, photo, until
from PIL import Image
from stub_worker import RAISES

from backend.app import create_app
from backend.cli import main
from backend.settings import Settings
from worker.contract import BULK, outbox_key

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


def test_many_tasks_are_refused_while_redis_is_away_and_a_few_are_not(fleet: Fleet) -> None:
    """[] means "ask again": Label Studio does so for a task that somebody opens, and not for a thousand others."""
    fleet.start(1)
    client = create_app(Settings(redis_url=fleet.server.url)).test_client()
    tasks = [{"id": n, "data": {"image": photo()}} for n in range(1, 6)]
    body: dict[str, Any] = {"tasks": tasks, "project": "7.1", "label_config": CONFIG, "params": {}}
    assert client.post("/setup", json={"schema": CONFIG}).status_code == 200
    fleet.server._end()
    answer = client.post("/predict", json=body)
    assert answer.status_code == 503
    assert "5 tasks were not taken" in answer.status
    assert int(answer.headers["Retry-After"]) > 0
    assert client.post("/predict", json=body | {"tasks": tasks[:4]}).get_json()["results"] == [[]] * 4
    fleet.server.start()
    until(lambda: client.post("/predict", json=body).status_code == 200, "Redis")


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
@pytest.mark.timeout(900)
def test_bench_tells_all_that_is_promised() -> None:
    """A small form of the command: what it measures is not looked at, only that it does."""
    small = ["--tasks", "200", "--images", "20", "--real-images", "8"]
    ended = CliRunner().invoke(main, ["bench", "queue", "--json", *small], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    figures = json.loads(ended.stdout.splitlines()[-1])
    assert figures["network"] == "efficientnet_lite0"
    for name in ("enqueue_per_s", "slowest_request_s", "overhead_ms_per_image", "rate_vs_engine"):
        assert isinstance(figures[name], float), name
    assert figures["rate_vs_engine"] > 0


@pytest.mark.slow
def test_memory_of_a_worker_stays_flat(fleet: Fleet, tmp_path: Path) -> None:
    """Jobs of no computing time at all, as many as a network that does one a second does in two hours: small and
    large photos, such as cannot be decoded, or fetched, or that raise."""
    part, parts = (25_000, 4) if LONG else (1_800, 4)
    (worker,) = fleet.start(1, seconds=0.0, roots=[str(tmp_path)], log="CRITICAL")
    fleet.jobs._retries = 0
    large = tmp_path / "large.jpg"
    Image.effect_noise((1200, 900), 50).convert("RGB").save(large)
    kinds = [None, None, str(large), "data:image/png;base64,AAAA", str(tmp_path / "gone.jpg"), photo(RAISES)]
    process = psutil.Process(worker.pid)
    sizes = []
    # So many large photos, one right after the other, that every loader's thread has held several: what such a
    # thread has once needed its allocator keeps, whenever that is.
    fleet.enqueue(range(10_000_000, 10_000_300), str(large))
    until(fleet.nothing_left, "the large photos", 900)
    for number in range(parts + 1):  # the first one warms up
        for kind, url in enumerate(kinds):
            share = part // (60 if kind in (2, 5) else 4)  # these take a while each
            fleet.enqueue(range((10 * number + kind) * part, (10 * number + kind) * part + share), url)
        until(fleet.nothing_left, "one part", 900)
        sizes.append(process.memory_info().rss / 1e6)
    growth, jobs = sizes[-1] - max(sizes[:2]), part * (parts - 1)
    assert fleet.stats()["images:failed"] > part
    assert fleet.stats()[f"jobs:{BULK}:failed"] > 10
    # A process's memory goes up and down by some megabytes with what the photos' decoders leave behind.
    assert growth < 10 + 0.1 * jobs / 1000, f"{growth:.1f} MB after {jobs:,} jobs: {sizes}"
    assert process.num_fds() < 100
    assert process.num_threads() < 50
