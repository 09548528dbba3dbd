"""`boxlift bench interactive` with a real Redis and worker: it measures what its names say."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from backend.cli import main
from backend.cli.bench_interactive import CORNERS, KINDS


@pytest.mark.timeout(600)
def test_a_click_on_a_known_photo_costs_no_network() -> None:
    done = CliRunner().invoke(
        main, ["bench", "interactive", "--photos", "2", "--device", "cpu", "--json"], catch_exceptions=False
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["machine"]
    assert figures["cached_click_jobs"] == 0
    assert figures["first_click_jobs"] >= figures["first_click_times"] == 2
    assert figures["rectangle_jobs"] == figures["rectangle_times"] == 2
    assert 1 <= figures["click_beside_times"] <= 2 * len(CORNERS)
    for kind in KINDS:
        assert 0 < figures[f"{kind}_p50_ms"] <= figures[f"{kind}_p95_ms"]
