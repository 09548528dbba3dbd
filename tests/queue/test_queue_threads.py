"""Several worker processes on one processor share it instead of crowding each other."""

from __future__ import annotations

import pytest

from backend.cli.worker import _threads, devices
from worker.errors import SettingsError


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(8, 1, 0), (8, 2, 4), (8, 3, 2), (2, 2, 1), (2, 16, 1)]
)
def test_processes_divide_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert _threads(processes) == threads


def test_what_people_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert _threads(4) == 0


@pytest.mark.parametrize(
    ("named", "processes", "expected"),
    [
        ("auto", None, ["auto"]),
        ("cuda:0,cuda:1", None, ["cuda:0", "cuda:1"]),
        (" cuda:0 , cuda:1,", 3, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cpu", 2, ["cpu", "cpu"]),
    ],
)
def test_every_device_gets_a_process(named: str, processes: int | None, expected: list[str]) -> None:
    assert devices(named, processes) == expected


@pytest.mark.parametrize(("named", "processes"), [("cuda:0,cuda:1", 1), (" ,", None)])
def test_no_device_is_left_idle(named: str, processes: int | None) -> None:
    with pytest.raises(SettingsError):
        devices(named, processes)
