"""`boxlift demo` as people run it, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from backend.demo.photos import LABELS, photos

COMMAND = [sys.executable, "-m", "backend.cli", "demo", "--network", "efficientnet_lite0"]
Running = tuple[subprocess.Popen[str], dict[str, object]]
KEYS = {"tasks", "with_prediction", "seconds", "network"}


def processes_in(folder: Path) -> list[psutil.Process]:
    """Processes whose working folder is the demo's: all that it starts, but Redis, have it."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = Path(process.cwd()).is_relative_to(folder) or str(folder) in " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue
        if inside and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def assert_all_gone(processes: list[psutil.Process]) -> None:
    """All have ended, or do so shortly."""
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert [process.cmdline() for process in alive] == []


@dataclass(frozen=True)
class Finished:
    """A demo that ran with --once."""

    folder: Path
    outcome: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("demo")
    command = [*COMMAND, "--once", "--json", "--folder", str(folder), "--port", "0", "--backend-port", "0"]
    return Finished(folder, subprocess.run(command, capture_output=True, text=True, check=False))


@pytest.fixture
def running(finished: Finished) -> Iterator[Running]:
    """The demo in the folder of an earlier one, once its predictions are verified; and its line of JSON."""
    command = [*COMMAND, "--json", "--folder", str(finished.folder), "--port", "0", "--backend-port", "0"]
    log = finished.folder / "second.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, log.read_text()
            yield process, json.loads(line)
        finally:
            process.kill()


def test_once_verifies_all_photos(finished: Finished) -> None:
    assert finished.outcome.returncode == 0, finished.outcome.stderr
    [line] = finished.outcome.stdout.splitlines()
    told = json.loads(line)
    assert set(told) == KEYS
    assert told["tasks"] == told["with_prediction"] == len(photos()) >= 10
    assert told["network"] == "efficientnet_lite0"
    assert told["seconds"] > 0
    assert all(photo.file in finished.outcome.stderr for photo in photos())
    assert processes_in(finished.folder) == []


def test_a_second_one_is_refused_and_ctrl_c_stops_everything(running: Running, finished: Finished) -> None:
    process, told = running
    # The second start found the first one's project.
    assert told["tasks"] == told["with_prediction"] == len(photos())
    command = [*COMMAND, "--once", "--folder", str(finished.folder)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "runs in" in second.stderr
    assert second.stdout == ""
    started = [item for item in processes_in(finished.folder) if item.pid != process.pid]
    started += psutil.Process(process.pid).children(recursive=True)
    assert len({item.pid for item in started}) >= 4, "Redis, Label Studio, worker, backend"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert_all_gone(started)
    assert processes_in(finished.folder) == []


def test_crash_stops_everything(running: Running, finished: Finished) -> None:
    process, _ = running
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= 4, "Redis, Label Studio, worker, backend"
    process.kill()
    assert_all_gone(started)
    time.sleep(0.5)
    assert processes_in(finished.folder) == []


def test_each_photo_has_origin_licence_and_label() -> None:
    folder = photos()[0].path.parent
    assert {photo.path for photo in photos()} == set(folder.glob("*.jpg"))
    for photo in photos():
        assert photo.label in LABELS
        assert photo.licence in {"CC0-1.0", "Public domain"}
        assert photo.author
        assert photo.source.startswith("https://")
    assert sum(photo.path.stat().st_size for photo in photos()) < 2_000_000
