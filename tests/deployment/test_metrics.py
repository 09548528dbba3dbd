"""The documented metrics are the real ones, and the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from backend.overview import QUEUES
from worker.contract import OUTBOXES_KEY, PREFIX, SCHEMA, outbox_key

from .processes import ROOT, ask, deployment, until

DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "boxlift.json").read_text(encoding="utf-8"))
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
METRIC = re.compile(r"\bboxlift_\w+")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """/metrics of a real backend with a real worker."""
    with deployment(tmp_path_factory.mktemp("deployment")) as made, redis.Redis.from_url(made.server.url) as client:
        _, url, _ = made.backend(BOXLIFT_BASIC_AUTH="prometheus:secret")
        made.worker()
        until(lambda: ask(url, "/health").json()["state"] == "ready", "a worker")
        client.sadd(OUTBOXES_KEY, 5)
        client.hset(outbox_key(5), "1", "{}")
        assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 401
        return ask(url, "/metrics", auth=("prometheus", "secret")).text


def test_the_table_is_what_a_backend_tells(told: str) -> None:
    table = OPERATING.partition("<!-- metrics -->")[2].partition("<!-- /metrics -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*)\|", table, re.MULTILINE)
    found = {}
    for family in text_string_to_metric_families(told):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    assert {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows} == found


def test_every_state_and_outcome_that_is_documented_is_told(told: str) -> None:
    assert set(re.findall(r'state="(\w+)"', told)) == {"waiting", "running", "paused", "failed"}
    assert set(re.findall(r'outcome="(\w+)"', told)) == {"finished", "failed", "retried", "lost"}
    assert set(re.findall(r'queue="([\w-]+)"', told)) == set(QUEUES)


def test_the_dashboard_asks_for_what_a_backend_tells(told: str) -> None:
    samples = {sample.name for family in text_string_to_metric_families(told) for sample in family.samples}
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked = {name for target in targets for name in METRIC.findall(target["expr"])}
    assert asked
    assert asked <= samples
    families = {family.name for family in text_string_to_metric_families(told)}
    shown = {name.removesuffix("_total").removesuffix("_bucket") for name in asked}
    assert families <= shown, "a metric that no panel shows"


def test_the_dashboard_selects_labels_that_exist(told: str) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            for label, value in re.findall(r'(\w+)="(\w+)"', target["expr"]):
                assert f'{label}="{value}"' in told, target["expr"]
            for names in re.findall(r"by \(([\w, ]+)\)", target["expr"]):
                for label in re.findall(r"\w+", names):
                    assert label in ("instance", "le") or f'{label}="' in told, target["expr"]
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target["legendFormat"]


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_links_and_names_of_the_page_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", OPERATING):
        assert (Path(ROOT, "docs") / target).resolve().is_file(), target
    assert f"`{PREFIX}`" in OPERATING
    assert f"`bl{SCHEMA}-`" in OPERATING
