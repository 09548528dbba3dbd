"""Prometheus metrics of the whole installation, read from Redis when they are asked for.

Workers on any machine add to counters in Redis, so one backend shows them all; every backend shows the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import redis
from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from backend.overview import QUEUES, Overview, overview
from backend.queueing import connect
from worker.contract import LATENCY_BOUNDS
from worker.errors import QueueError

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Content type of what `metrics` returns."""
OUTCOMES = ("finished", "failed", "retried", "lost")


def metrics(client: redis.Redis) -> bytes:
    """All metrics in Prometheus's text format; with Redis away only `boxlift_redis_up 0`."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(client))
    return generate_latest(registry)


class QueueCollector(Collector):
    """Turns an overview of the queue into metric families."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: registering must not ask Redis."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        up = GaugeMetricFamily("boxlift_redis_up", "1 if Redis answers")
        try:
            state = overview(self._client)
        except QueueError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _queues(state)
        yield from _work(state)
        yield from _workers(state)
        yield _latency(state)


def _queues(state: Overview) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("boxlift_queue_jobs", "Jobs in a queue, by state", labels=["queue", "state"])
    oldest = GaugeMetricFamily(
        "boxlift_queue_oldest_seconds", "How long the job at the front of a queue has waited", labels=["queue"]
    )
    for queue in state.queues:
        for name in ("waiting", "running", "paused", "failed"):
            jobs.add_metric([queue.name, name], getattr(queue, name))
        oldest.add_metric([queue.name], queue.oldest)
    yield jobs
    yield oldest
    undelivered = GaugeMetricFamily(
        "boxlift_undelivered_results", "Results that are not in Label Studio yet", labels=["project"]
    )
    for project, count in state.undelivered.items():
        undelivered.add_metric([str(project)], count)
    yield undelivered
    memory = GaugeMetricFamily("boxlift_redis_memory_bytes", "Memory that Redis uses")
    memory.add_metric([], state.memory)
    yield memory


def _work(state: Overview) -> Iterator[Metric]:
    jobs = CounterMetricFamily("boxlift_jobs", "Jobs ended, by outcome", labels=["queue", "outcome"])
    for queue in QUEUES:
        for outcome in OUTCOMES:
            jobs.add_metric([queue, outcome], state.stats.get(f"jobs:{queue}:{outcome}", 0))
    yield jobs
    for name, key, help_ in (
        ("boxlift_images", "images", "Images that went through the network, or could not be used"),
        ("boxlift_images_failed", "images:failed", "Images that could not be used"),
        ("boxlift_busy_seconds", "busy", "Seconds that workers spent computing"),
    ):
        counter = CounterMetricFamily(name, help_)
        counter.add_metric([], state.stats.get(key, 0))
        yield counter


def _workers(state: Overview) -> Iterator[Metric]:
    rate = GaugeMetricFamily(
        "boxlift_worker_images_per_second",
        "Images a second while computing",
        labels=["worker", "device", "model_version"],
    )
    beat = GaugeMetricFamily(
        "boxlift_worker_heartbeat_age_seconds", "Time since a worker's last sign of life", labels=["worker"]
    )
    for name, about in state.workers.items():
        rate.add_metric(
            [name, str(about.get("device", "")), str(about.get("version", ""))], float(about.get("rate", 0))
        )
        beat.add_metric([name], float(about["age"]))
    yield rate
    yield beat
    count = GaugeMetricFamily("boxlift_workers", "Live workers")
    count.add_metric([], len(state.workers))
    yield count


def _latency(state: Overview) -> Metric:
    family = HistogramMetricFamily(
        "boxlift_job_latency_seconds", "Time from enqueueing to the result, of finished jobs", labels=["queue"]
    )
    for queue in QUEUES:
        count = state.stats.get(f"latency:{queue}:count", 0.0)
        buckets = [(f"{bound:g}", state.stats.get(f"latency:{queue}:{bound:g}", 0.0)) for bound in LATENCY_BOUNDS]
        total = state.stats.get(f"latency:{queue}:sum", 0.0)
        family.add_metric([queue], [*buckets, ("+Inf", count)], sum_value=total)
    return family


def metrics_routes(redis_url: str) -> Blueprint:
    """GET /metrics for a Flask application. Nothing is connected before the first request."""
    blueprint = Blueprint("metrics", __name__)
    client = functools.cache(lambda: connect(redis_url))

    @blueprint.get("/metrics")
    def show() -> Response:
        return Response(metrics(client()), content_type=CONTENT_TYPE)

    return blueprint
