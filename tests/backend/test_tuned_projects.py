"""A project with a tuning of its own: its version, labels and plans, and nobody else's."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import VERSION, Desk
from flask import Flask
from flask.testing import FlaskClient
from test_app import CONFIG, body, results

from worker.contract import Head, Model, Tuning
from worker.errors import QueueError

MINE, OTHER = 5, 6
HEAD = Head(labels=("Dog",), weights="", bias=(0.0,))


def setup(client: FlaskClient, project: int) -> str:
    answer = client.post("/setup", json={"schema": CONFIG, "project": f"{project}.123"})
    return str(answer.get_json()["model_version"])


def eventually(said: Callable[[], str], wanted: str) -> None:
    """What is in Redis is asked for once a second."""
    deadline = time.monotonic() + 30
    while said() != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def tuning(desk: Desk) -> Tuning:
    desk.tunings[MINE] = Tuning(MINE, VERSION, "vgg16", {"threshold": 0.3}, HEAD)
    return desk.tunings[MINE]


def test_its_version_everywhere_and_only_there(client: FlaskClient, tuning: Tuning, desk: Desk) -> None:
    assert tuning.version != VERSION
    assert setup(client, MINE) == tuning.version
    assert client.get(f"/versions?project={MINE}").get_json()["versions"] == [tuning.version]
    [mine] = results(client, body(1, project=f"{MINE}.1"))
    assert mine["model_version"] == tuning.version
    [request] = desk.asked[-1][0]
    plan = desk.plans[request.plan]
    assert (request.model_version, plan.tuning) == (tuning.version, tuning.version)
    assert plan.classes is not None
    assert len(desk.announced.classes) in plan.classes, "its own label is a further class"  # type: ignore[union-attr]

    assert setup(client, OTHER) == VERSION
    [other] = results(client, body(1, project=f"{OTHER}.1"))
    assert other["model_version"] == VERSION
    [request] = desk.asked[-1][0]
    assert (request.model_version, desk.plans[request.plan].tuning) == (VERSION, None)


def test_a_tuning_of_other_weights_is_not_used_and_says_so_once(
    client: FlaskClient, tuning: Tuning, desk: Desk, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    newer = "boxlift-vgg16-newer0000000"
    desk.announced = dataclasses.replace(model, version=newer)
    with caplog.at_level(logging.WARNING):
        assert {setup(client, MINE) for _ in range(3)} == {newer}
    told = [record.getMessage() for record in caplog.records if tuning.version in record.getMessage()]
    assert len(told) == 1
    assert f"boxlift tune --project {MINE}" in told[0]
    [request] = [results(client, body(1, project=f"{MINE}.1")), desk.asked[-1][0]][1]
    assert desk.plans[request.plan].tuning is None


def test_a_new_tuning_and_its_end_are_noticed(make_app: Callable[..., Flask], desk: Desk) -> None:
    client = make_app().test_client()
    assert setup(client, MINE) == VERSION
    tuning = desk.tunings[MINE] = Tuning(MINE, VERSION, "vgg16", {"threshold": 0.3})
    eventually(lambda: setup(client, MINE), tuning.version)
    del desk.tunings[MINE]
    eventually(lambda: setup(client, MINE), VERSION)


@pytest.mark.parametrize("trouble", ["slow", "away"])
def test_unknown_is_not_none(make_app: Callable[..., Flask], tuning: Tuning, desk: Desk, trouble: str) -> None:
    """Nobody gets the defaults' boxes only because Redis has not said yet that the project has a tuning."""
    there, read = threading.Event(), desk.tuning

    def late(project: int) -> Tuning | None:
        if trouble == "away" and not there.is_set():
            raise QueueError("Redis cannot be reached")
        there.wait(60)
        return read(project)

    desk.tuning = late  # type: ignore[method-assign]
    client = make_app().test_client()
    assert results(client, body(1, project=f"{MINE}.1")) == [[]]
    assert not desk.asked
    there.set()
    deadline = time.monotonic() + 30
    while (found := results(client, body(1, project=f"{MINE}.1"))) == [[]]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found[0]["model_version"] == tuning.version


def settled(app: Flask) -> None:
    """Wait for what goes on after answers."""
    app.extensions["boxlift-background"].close()


@pytest.mark.parametrize("repredict", ["no", "yes"])
def test_start_training_asks_for_a_tuning(
    make_app: Callable[..., Flask], desk: Desk, shared: Path, repredict: str
) -> None:
    app = make_app(tune_repredict=repredict)
    recorded = json.loads((shared / "label-studio" / "fixtures" / "webhook-start-training.json").read_text())
    answer = app.test_client().post("/webhook", json=recorded["request"]["body"])
    assert (answer.status_code, answer.get_json()) == (201, {"status": "accepted"})
    settled(app)
    assert desk.wishes == [(recorded["request"]["body"]["project"]["id"], repredict == "yes")]


@pytest.mark.parametrize("body", [{}, {"project": None}, {"project": {"id": "x"}}, {"project": {"id": -1}}])
def test_start_training_of_no_project_asks_for_nothing(
    make_app: Callable[..., Flask], desk: Desk, body: dict[str, Any]
) -> None:
    app = make_app()
    assert app.test_client().post("/webhook", json={"action": "START_TRAINING"} | body).status_code == 201
    settled(app)
    assert desk.wishes == []


@pytest.mark.parametrize(("every", "wishes"), [(0, 0), (2, 2), (4, 1), (9, 0)])
def test_every_so_many_annotations(
    make_app: Callable[..., Flask], desk: Desk, shared: Path, every: int, wishes: int
) -> None:
    app = make_app(tune_every=every)
    client = app.test_client()
    folder = shared / "label-studio" / "fixtures"
    for name in ("created-ui-drawn", "updated-ui-moved", "created-ui-skip", "updated-api"):
        recorded = json.loads((folder / f"webhook-annotation-{name}.json").read_text())
        told = client.post("/webhook", json=recorded["request"]["body"]).get_json()
        assert told == {"status": "accepted" if every else "ignored"}
    settled(app)
    assert len(desk.wishes) == wishes
