"""Work after the answer: what cannot be done yet is tried again, in order, since Label Studio repeats nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from desk import Desk
from flask import Flask

from backend import background
from backend.background import Background, NotNowError
from worker.errors import QueueError, QueueFullError

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/></RectangleLabels></View>'
)
PATIENCE = 60.0
"""Seconds; a limit for a run that hangs, not a claim about speed."""


def event(action: str, *tasks: int) -> dict[str, Any]:
    made = [{"id": task, "data": {"image": f"http://h/{task}.jpg"}} for task in tasks]
    return {"action": action, "project": {"id": 5, "label_config": CONFIG}, "tasks": made}


@pytest.mark.parametrize("error", [QueueError("Redis cannot be reached"), QueueFullError("full")])
def test_new_tasks_outlive_an_outage(
    make_app: Callable[..., Flask], desk: Desk, monkeypatch: pytest.MonkeyPatch, error: QueueError
) -> None:
    tried, done = threading.Event(), threading.Event()
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.01)
    submit, cancel = desk.submit, desk.cancel

    def failing(*arguments: Any, **others: Any) -> Any:
        if desk.error:
            tried.set()
        return submit(*arguments, **others)

    def cancelling(*arguments: Any) -> int:
        assert desk.asked, "tasks are deleted before they were enqueued, and would come back"
        done.set()
        return cancel(*arguments)

    desk.submit, desk.cancel = failing, cancelling  # type: ignore[method-assign]
    app = make_app(preannotate="yes")
    client = app.test_client()
    client.post("/setup", json={"schema": CONFIG})  # the model is known before Redis goes
    desk.error = error
    for action, task in (("TASKS_CREATED", 1), ("TASKS_DELETED", 2)):
        assert client.post("/webhook", json=event(action, task)).get_json() == {"status": "accepted"}
    assert tried.wait(PATIENCE)
    desk.error = None
    assert done.wait(PATIENCE)
    app.extensions["boxlift-background"].close()
    ((requests, interactive, _),) = desk.asked
    assert ([request.task for request in requests], interactive) == ([1], False)
    assert desk.cancelled == [(5, {2})]


def test_the_end_does_not_wait_for_what_cannot_be_done(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def never() -> None:
        tries.append(1)
        raise NotNowError("new tasks not enqueued")

    work = Background(pause=3600.0)
    assert work.later(never)
    work.close()
    assert 1 <= len(tries) <= 2
    assert "given up at the end: new tasks not enqueued" in caplog.text
    assert not work.later(never)


def test_a_full_backlog_refuses_and_recovers() -> None:
    release, work = threading.Event(), Background(backlog=2)
    assert work.later(release.wait, PATIENCE)
    assert work.later(int)
    assert not work.later(int)
    release.set()
    work.close()


def test_drafts_do_not_wait_for_redis(make_app: Callable[..., Flask]) -> None:
    app = make_app(write="drafts", studio_url="http://studio", studio_token="t")
    assert app.extensions["boxlift-drafts"] is not app.extensions["boxlift-background"]
