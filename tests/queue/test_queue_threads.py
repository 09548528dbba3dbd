"""Several worker processes on one processor share it instead of crowding each other."""

from __future__ import annotations

import pytest

from backend.cli.worker import _threads


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
