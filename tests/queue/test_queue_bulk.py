"""Whole data sets through a real queue: nothing twice, nothing lost, whenever the command is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, until
from label_studio_sdk.label_interface.interface import LabelInterface
from PIL import Image
from stub_worker import GOOD, RAISES

from backend.bulk.collecting import Collector
from worker.contract import Request

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Cat" predicted_values="cat"/></RectangleLabels></View>'
)
PHOTOS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, every one a little different, and a labelling config beside them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(PHOTOS):
        Image.new("RGB", (40, 30), GOOD).save(photos / f"{number:03}.png")
    (tmp_path / "config.xml").write_text(CONFIG)
    return photos


def command(fleet: Fleet | None, folder: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    """`boxlift preannotate` of the folder, on the fleet's Redis."""
    base = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    redis = {"REDIS_URL": fleet.server.url} if fleet else {}
    out = folder.with_name("out.json")
    arguments = ["preannotate", str(folder), "--config", str(folder.with_name("config.xml")), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "backend.cli", *arguments, "--json", *more],
        env=base | redis | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> dict[str, Any]:
    """What it printed, once it has ended with this status."""
    out, wrong = process.communicate(timeout=240)
    assert process.returncode == status, wrong
    return dict(json.loads(out)) if out else {"error": wrong}


def lines(folder: Path) -> int:
    """Results in the journal."""
    journal = folder.with_name("out.json.partial")
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def check(folder: Path) -> None:
    """Every photo has exactly one valid prediction, and nothing is left beside the output."""
    tasks = json.loads(folder.with_name("out.json").read_text())
    shown = Counter(Path(task["data"]["image"]).name for task in tasks)
    assert shown == Counter(file.name for file in folder.iterdir())
    interface: Any = LabelInterface(CONFIG)
    for task in tasks:
        [prediction] = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []
        [item] = prediction["result"]
        assert item["value"]["rectanglelabels"] == ["Cat"]
    assert {path.name for path in folder.parent.iterdir()} == {"photos", "config.xml", "out.json"}


@pytest.mark.parametrize("killed_at", [(0,), (1, 20, 40), (59,)])
def test_killed_at_any_moment_it_ends_with_one_prediction_a_task(
    fleet: Fleet, folder: Path, killed_at: tuple[int, ...]
) -> None:
    fleet.start(seconds=0.05, batch=4, roots=[str(folder)])
    for number in killed_at:
        process = command(fleet, folder)
        until(lambda n=number: lines(folder) >= n, f"{number} results")  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not folder.with_name("out.json").exists() or number == 59
    summary = finish(command(fleet, folder))
    assert (summary["total"], summary["done"], summary["failed"]) == (PHOTOS, PHOTOS, 0)
    check(folder)
    assert fleet.stats()["images"] == PHOTOS, "some photo was computed twice"
    assert not fleet.delivered_to(), "something waits to be delivered that belongs to no project"


def test_ctrl_c_says_how_to_go_on(fleet: Fleet, folder: Path) -> None:
    fleet.start(seconds=0.05, batch=4, roots=[str(folder)])
    process = command(fleet, folder)
    until(lambda: lines(folder) >= 5, "the first results")
    process.send_signal(signal.SIGINT)
    assert "goes on where it was" in finish(process, status=130)["error"]
    assert finish(command(fleet, folder))["done"] == PHOTOS
    check(folder)


def test_a_worker_that_dies_and_one_that_comes(fleet: Fleet, folder: Path) -> None:
    [first] = fleet.start(seconds=0.05, batch=4, lease=2.0, roots=[str(folder)])
    process = command(fleet, folder)
    until(lambda: lines(folder) >= 5, "the first results")
    first.send_signal(signal.SIGKILL)
    first.wait()
    fleet.start(seconds=0.01, batch=4, lease=2.0, roots=[str(folder)])
    assert finish(process)["done"] == PHOTOS
    check(folder)


def test_a_redis_that_goes_and_comes_back(fleet: Fleet, folder: Path) -> None:
    fleet.start(seconds=0.05, batch=4, lease=2.0, roots=[str(folder)])
    process = command(fleet, folder)
    until(lambda: lines(folder) >= 5, "the first results")
    assert fleet.server.pid is not None
    os.kill(fleet.server.pid, signal.SIGKILL)
    time.sleep(3.0)
    assert process.poll() is None, "it gave up at once"
    fleet.server.start()
    assert finish(process)["done"] == PHOTOS
    check(folder)


def test_what_fails_is_named_and_tried_again_by_the_next_run(fleet: Fleet, folder: Path) -> None:
    fleet.start(roots=[str(folder)])
    (folder / "broken.jpg").write_text("no photo")
    Image.new("RGB", (4, 4), RAISES).save(folder / "poison.png")
    summary = finish(command(fleet, folder), status=1)
    assert (summary["done"], summary["failed"]) == (PHOTOS, 2)
    assert "not a picture" in summary["failures"]["broken.jpg"]
    assert "poisonous" in summary["failures"]["poison.png"]
    Image.new("RGB", (4, 4), GOOD).save(folder / "broken.jpg")
    Image.new("RGB", (6, 4), GOOD).save(folder / "poison.png")
    before = fleet.stats()["images"]
    again = finish(command(fleet, folder))
    assert (again["done"], again["computed"]) == (PHOTOS + 2, 2)
    assert fleet.stats()["images"] == before + 2
    check(folder)


def test_photos_that_workers_may_not_read_say_what_to_do(fleet: Fleet, folder: Path) -> None:
    fleet.start()
    summary = finish(command(fleet, folder), status=1)
    assert summary["failed"] == PHOTOS
    assert all("BOXLIFT_IMAGE_ROOTS" in reason for reason in summary["failures"].values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "say what"),
        (["photos", "--project", "1"], "say what"),
        (["photos"], "--config"),
        (["--project", "1", "--only-missing", "--replace"], "choose one"),
        (["--project", "1", "--format", "coco"], "go with a SOURCE"),
        (["photos", "--config", "config.xml", "--out", "photos"], "--out is to be a file"),
        (
            ["photos", "--config", "config.xml", "--out", "config.xml", "--format", "yolo"],
            "--out is to be a folder",
        ),
        (["photos", "--config", "config.xml", "--out", "o", "--filter", "x"], "go with --project"),
    ],
)
def test_usage(folder: Path, arguments: list[str], complaint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", "preannotate", *arguments],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert complaint in done.stderr


def test_without_redis_it_says_so(folder: Path) -> None:
    done = finish(command(None, folder, REDIS_URL="redis://127.0.0.1:1/0"), status=3)
    assert "Redis cannot be reached" in done["error"]
    assert "Traceback" not in done["error"]


def test_one_command_on_a_laptop_starts_and_ends_what_it_needs(folder: Path) -> None:
    """A real network, and a Redis and a worker of the command's own; killed, they go too."""
    for photo in sorted(folder.iterdir())[8:]:
        photo.unlink()
    mark = f"mark-{os.getpid()}"
    process = command(
        None, folder, "--network", "efficientnet_lite0", BOXLIFT_LOG_FORMAT="text", XDG_CACHE_HOME=mark
    )
    until(lambda: len(children(mark)) >= 3, "a worker")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not children(mark), "the end of the worker", 60)
    summary = finish(command(None, folder, "--network", "efficientnet_lite0"))
    assert (summary["done"], summary["version"].startswith("boxlift-efficientnet_lite0-")) == (8, True)
    tasks = json.loads(folder.with_name("out.json").read_text())
    assert [len(task["predictions"]) for task in tasks] == [1] * 8


def children(mark: str) -> list[int]:
    """Processes whose environment holds the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"XDG_CACHE_HOME={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_what_an_earlier_run_finished_is_handed_over_for_delivery(fleet: Fleet) -> None:
    """A result that nobody holds any more, say because it was answered to somebody who went away, is delivered."""
    fleet.start()
    requests = [fleet.request(task) for task in range(1, 6)]
    fleet.jobs.submit(requests[:3], interactive=False)
    fleet.wait_for_all(requests[:3])
    fleet.jobs.submit(requests[:3], interactive=False)  # answers with them: they leave the outbox
    assert not fleet.delivered_to()
    outcomes = list(Collector(fleet.jobs, window=4).run(requests))
    assert sorted(outcome.request.task for outcome in outcomes) == [1, 2, 3, 4, 5]
    assert all(outcome.result is not None for outcome in outcomes)
    assert fleet.delivered_to() == {1, 2, 3, 4, 5}
    assert fleet.stats()["images"] == 5


def test_jobs_that_disappear_are_put_again_once(fleet: Fleet) -> None:
    requests = [fleet.request(task) for task in range(1, 4)]
    took_out: list[Request] = []

    def disturb() -> None:
        if not took_out and fleet.jobs.lengths()["boxlift-bulk"] == 3:
            took_out.extend(requests[:2])
            assert fleet.jobs.cancel(requests[0].project, [1, 2]) == 2
            fleet.start()

    outcomes = list(Collector(fleet.jobs, check=disturb).run(requests))
    assert took_out
    assert sorted(outcome.request.task for outcome in outcomes if outcome.result) == [1, 2, 3]
