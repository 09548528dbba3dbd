"""`boxlift bench interactive`: how long a person waits for a smart tool, with a real worker and a real Redis."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from backend.cli.bench_queue import workers
from backend.predictor import Predictor
from backend.queueing import connect
from backend.redis_server import RedisServer
from backend.settings import Settings

KINDS = ("first_click", "cached_click", "click_beside", "rectangle")
"""The first click on a photo; a further one on the same object; one where no box lies, so that the network looks
closer; a rough rectangle."""
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="label" toName="image" smart="true"><Label value="Any" model_unmatched="true"/>'
    "</RectangleLabels></View>"
)
MIDDLE = {"x": 50.0, "y": 50.0, "width": 0.4}
CORNERS = [{"x": x, "y": y, "width": 0.4} for x in (1.0, 99.0) for y in (1.0, 99.0)]
ROUGH = {"x": 10.0, "y": 10.0, "width": 80.0, "height": 80.0, "rotation": 0}


@click.command("interactive")
@click.option("--network", default="efficientnet_lite0", show_default=True, help="Network of the worker.")
@click.option("--device", help="What it computes on; BOXLIFT_DEVICE if not given.")
@click.option("--photos", type=click.IntRange(2), default=20, show_default=True, help="Photos, each asked of once.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def command(network: str, device: str | None, photos: int, as_json: bool) -> None:
    """Measure clicks and rough rectangles, from the backend's side of /predict to its answer.

    Everything runs on an embedded Redis; the queue of REDIS_URL is not touched. Photos are read from the disk.
    """
    figures = measure(network, device or Settings.from_env().device, photos)
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        click.echo(f"{name:24} {value:,.1f}" if isinstance(value, float) else f"{name:24} {value}")


def measure(network: str, device: str, photos: int) -> dict[str, Any]:
    """p50 and p95 in milliseconds of each kind, how many were measured, and how many jobs workers did for them.
    Raises BoxliftError where the worker does not start."""
    from backend.cli.worker import Start, run_child
    from backend.demo.photos import FOLDER
    from worker.bench.engine import about_machine
    from worker.networks import resolve_device

    files = sorted(path for path in FOLDER.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with RedisServer() as server:
        settings = replace(
            Settings.from_env(),
            redis_url=server.url,
            network=network,
            image_roots=(FOLDER,),
            studio_url="",
            answer_seconds=120.0,
        )
        start = Start(settings, device, "", burst=False, batch=8, loaders=4)
        with workers(run_child, [(start,)]):
            person = _Person(Predictor.from_settings(settings), server.url)
            person.photo(0, files[0])  # caches and kernels
            person.taken.clear()
            for number in range(1, photos + 1):
                person.photo(number, files[number % len(files)])
            figures = {kind: _figures(person.taken[kind]) for kind in KINDS}
    return {
        "machine": about_machine(resolve_device(device))["machine"],
        "device": device,
        "network": network,
        "photos": photos,
        **{f"{kind}_{name}": value for kind in KINDS for name, value in figures[kind].items()},
    }


class _Person:
    """Draws, and waits for the answers."""

    def __init__(self, predictor: Predictor, url: str) -> None:
        self._predictor = predictor
        self._client = connect(url)
        self.taken: dict[str, list[tuple[float, int]]] = defaultdict(list)
        """Kind → seconds and jobs of each time."""

    def photo(self, task: int, file: Path) -> None:
        """All kinds of drawing on one photo that nobody has asked of before."""
        self._ask("first_click", task, file, MIDDLE)
        self._ask("cached_click", task, file, MIDDLE | {"x": 51.0, "y": 51.0})
        for corner in CORNERS:
            # Most corners lie under no box; those that do are clicks like the one before.
            self._ask("click_beside", task, file, corner)
        self._ask("rectangle", task, file, ROUGH)

    def _ask(self, kind: str, task: int, file: Path, value: Mapping[str, float]) -> None:
        form = "rectangle" if kind == "rectangle" else "keypoint"
        item = {"type": f"{form}labels", "to_name": "image", "value": {**value, f"{form}labels": ["Any"]}}
        tasks = [{"id": task, "data": {"image": str(file)}}]
        before, start = self._jobs(), time.perf_counter()
        self._predictor.assist(1, tasks, CONFIG, {"result": [item]})
        took, jobs = time.perf_counter() - start, self._jobs() - before
        if kind != "click_beside" or jobs:
            self.taken[kind].append((took, jobs))

    def _jobs(self) -> int:
        """Jobs that were asked for: their results are kept."""
        return sum(1 for _ in self._client.scan_iter("rq:job:*", count=1000))


def _figures(taken: Sequence[tuple[float, int]]) -> dict[str, Any]:
    if not taken:
        return {"times": 0}
    seconds = sorted(took for took, _ in taken)
    return {
        "p50_ms": 1000 * statistics.median(seconds),
        "p95_ms": 1000 * seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))],
        "times": len(taken),
        "jobs": sum(jobs for _, jobs in taken),
    }
