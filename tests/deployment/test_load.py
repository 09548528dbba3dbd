"""Many clients on a backend with a slow worker, in short: nothing but answers and the documented 503."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from backend.serving import HealthFirst

from .processes import PATIENCE, ROOT


@pytest.mark.slow
def test_many_clients_and_a_slow_worker() -> None:
    """How long /health takes is measured by the same script, but is no test: machines may be busy."""
    command = [
        sys.executable,
        "scripts/load.py",
        "--clients",
        "40",
        "--seconds",
        "8",
        "--limit",
        "5",  # a quarter of those who ask: also where the machine is too busy for all to ask at once
        "--slowest",
        "99",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)["answers"]
    assert set(answers) == {"/health 200", "/predict 200", "/predict 503"}


def test_health_goes_before_what_waits() -> None:
    dispatcher = HealthFirst()
    asked = ["/predict", "/setup", "/health", "/predict", "/ready"]
    for path in asked:
        dispatcher.add_task(SimpleNamespace(requests=[SimpleNamespace(path=path)]))
    order = [task.requests[0].path for task in dispatcher.queue]
    assert order == ["/ready", "/health", "/predict", "/setup", "/predict"]
