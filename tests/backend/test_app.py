"""The routes: what they answer when something is missing, slow, wrong or not allowed."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from desk import VERSION, Desk
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.app import create_app
from backend.settings import Settings
from worker.contract import Model, Request, Result
from worker.errors import QueueError, QueueFullError, SettingsError

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/><Label value="Cat"/></RectangleLabels></View>'
)


def body(*numbers: int, config: str = CONFIG, project: Any = "5.1795471504", **params: Any) -> dict[str, Any]:
    tasks = [{"id": n, "data": {"image": f"http://h/{n}.jpg"}} for n in numbers]
    return {"tasks": tasks, "project": project, "label_config": config, "params": params}


def results(client: FlaskClient, request: dict[str, Any]) -> list[Any]:
    answer = client.post("/predict", json=request)
    assert answer.status_code == 200
    return list(answer.get_json()["results"])


def test_one_version_everywhere(client: FlaskClient) -> None:
    said = {
        client.post("/setup", json={"schema": CONFIG}).get_json()["model_version"],
        client.get("/versions").get_json()["versions"][0],
        client.post("/versions", json={}).get_json()["versions"][0],
        results(client, body(1))[0]["model_version"],
        client.get("/").get_json()["model_version"],
    }
    assert said == {VERSION}


def test_before_any_worker(make_app: Callable[..., Flask], desk: Desk) -> None:
    desk.announced = None
    client = make_app().test_client()
    assert client.get("/health").status_code == 200
    setup = client.post("/setup", json={"schema": CONFIG})
    assert setup.status_code == 503
    assert "boxlift worker" in setup.get_json()["error"]
    assert "boxlift worker" in setup.status  # all that Label Studio shows
    assert results(client, body(1, 2)) == [[], []]
    assert client.get("/versions").get_json()["versions"] == []
    assert "boxlift worker" in client.get("/").get_json()["message"]


def test_redis_gone(make_app: Callable[..., Flask], desk: Desk) -> None:
    desk.error = QueueError("Redis cannot be reached: check REDIS_URL")
    client = make_app().test_client()
    assert "REDIS_URL" in client.post("/setup", json={"schema": CONFIG}).status
    assert results(client, body(1)) == [[]]


def test_a_model_once_known_outlives_redis(make_app: Callable[..., Flask], desk: Desk) -> None:
    app = make_app()
    app.extensions["boxlift"]._announced._fresh = 0.0
    client = app.test_client()
    assert client.post("/setup", json={"schema": CONFIG}).status_code == 200
    desk.error = QueueError("Redis cannot be reached: check REDIS_URL")
    assert client.post("/setup", json={"schema": CONFIG}).get_json()["model_version"] == VERSION
    assert results(client, body(1)) == [[]]


def test_setup_and_health_answer_while_redis_hangs(
    make_app: Callable[..., Flask], desk: Desk, model: Model
) -> None:
    released = threading.Event()
    desk.model = lambda: released.wait(60) and None  # type: ignore[method-assign, assignment]
    before = threading.active_count()
    app = make_app()
    app.extensions["boxlift"]._announced._patience = 0.05
    client = app.test_client()
    try:
        assert client.get("/health").status_code == 200
        assert "Redis" in client.post("/setup", json={"schema": CONFIG}).get_json()["error"]
        assert results(client, body(1)) == [[]]
        assert threading.active_count() < before + 10
    finally:
        released.set()


def test_a_full_queue_is_a_503_with_retry_after(client: FlaskClient, desk: Desk) -> None:
    assert results(client, body(1))[0]
    desk.error = QueueFullError("100,000 tasks wait already: ask again later")
    answer = client.post("/predict", json=body(1))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_waiting_requests_leave_threads_free(make_app: Callable[..., Flask], desk: Desk) -> None:
    """Four threads: two requests may wait, the third is answered at once, as are /health and /setup."""
    app = make_app(threads=4)
    inside, release = threading.Semaphore(0), threading.Event()
    submit = desk.submit

    def slow(requests: list[Request], *, interactive: bool, wait: float = 0.0) -> dict[int, Result]:
        if wait > 0:
            inside.release()
            release.wait(60)
        return submit(requests, interactive=interactive, wait=wait)

    desk.submit = slow  # type: ignore[method-assign, assignment]
    threads = [threading.Thread(target=lambda n=n: results(app.test_client(), body(n))) for n in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert inside.acquire(timeout=30)
        assert results(app.test_client(), body(3))[0]["result"]  # not refused, only not waited for
        assert desk.asked[-1][2] == 0
        assert app.test_client().post("/setup", json={"schema": CONFIG}).status_code == 200
    finally:
        release.set()
        for thread in threads:
            thread.join()
    results(app.test_client(), body(4))
    assert desk.asked[-1][2] > 0


def test_tasks_that_cannot_be_used_are_empty_lists_in_their_place(client: FlaskClient) -> None:
    request = body(1, 2, 3, 4, 5, 6)
    request["tasks"][0] = {"id": 1, "data": {"other": "x"}}
    request["tasks"][1] = "no task"
    request["tasks"][2] = {"data": {"image": "http://h/3.jpg"}}
    request["tasks"][4] = {"id": 5, "data": {"image": ["http://h/0.jpg", None]}}
    request["tasks"][5]["id"] = 10**30
    answers = results(client, request)
    assert [bool(entry) for entry in answers] == [False, False, False, True, True, False]


def test_projects_do_not_mix(client: FlaskClient, desk: Desk) -> None:
    other = CONFIG.replace("Dog", "Car").replace("Cat", "Truck")
    labels = [
        results(client, body(1, project=project, config=config))[0]["result"][0]["value"]["rectanglelabels"]
        for project, config in (("5.1", CONFIG), ("6.1", other), (5, CONFIG))
    ]
    assert labels == [["Dog"], ["Car"], ["Dog"]]
    assert [asked[0][0].project for asked in desk.asked] == [5, 6, 5]


def test_a_changed_config_counts_at_once(client: FlaskClient) -> None:
    assert results(client, body(1))[0]["result"][0]["from_name"] == "label"
    changed = CONFIG.replace('name="label"', 'name="boxes"')
    assert results(client, body(1, config=changed))[0]["result"][0]["from_name"] == "boxes"


def test_another_model_predicts_the_same_tasks_again(make_app: Callable[..., Flask], desk: Desk) -> None:
    app = make_app()
    app.extensions["boxlift"]._announced._fresh = 0.0
    client = app.test_client()
    assert results(client, body(1))[0]["model_version"] == VERSION
    assert desk.announced is not None
    desk.announced = replace(desk.announced, version="boxlift-resnet18-ffffffffffff", network="resnet18")
    deadline = time.monotonic() + 60
    while (told := client.post("/setup", json={"schema": CONFIG}).get_json()["model_version"]) == VERSION:
        assert time.monotonic() < deadline
    assert results(client, body(1))[0]["model_version"] == told == desk.announced.version
    first, second = (requests[0] for requests, _, _ in desk.asked)
    assert first.job_id != second.job_id


def test_labels_that_no_class_reaches_are_told_at_setup_and_in_the_log(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    told = client.post("/setup", json={"schema": CONFIG.replace("Cat", "Dragonlet")}).get_json()
    assert told["unreachable"] == ["Dragonlet"]
    assert "Dragonlet" in told["message"]
    assert "Dragonlet" in caplog.text


@pytest.mark.parametrize("route", ["/setup", "/predict", "/webhook"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b"1" * 10_000])
def test_bodies_that_are_no_json_object_are_a_400(client: FlaskClient, route: str, data: bytes) -> None:
    answer = client.post(route, data=data, content_type="application/json")
    assert answer.status_code == 400
    assert "error" in answer.get_json()


def test_other_content_types_methods_and_paths(client: FlaskClient) -> None:
    assert client.post("/predict", data="{}", content_type="text/plain").status_code == 415
    assert client.get("/predict").status_code == 405
    assert client.get("/nowhere").status_code == 404
    assert client.get("/nowhere").get_json()["error"]
    assert client.post("/predict", json={"tasks": 5}).status_code == 400


BASIC = {"Authorization": "Basic " + base64.b64encode(b"studio:pass:word").decode()}
WRONG = {"Authorization": "Basic " + base64.b64encode(b"studio:other").decode()}
ROUTES = [
    ("GET", "/"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("GET", "/versions"),
    ("POST", "/versions"),
    ("POST", "/webhook"),
]


def test_basic_auth_protects_all_but_health(make_app: Callable[..., Flask]) -> None:
    client = make_app(basic_auth="studio:pass:word").test_client()
    for method, path in [*ROUTES, ("GET", "/nowhere")]:
        for headers in ({}, WRONG, {"Authorization": "Bearer x"}, {"Authorization": "Basic %%%"}):
            answer = client.open(path, method=method, json={"tasks": []}, headers=headers)
            assert answer.status_code == 401, (path, headers)
            assert "pass:word" not in answer.text
        allowed = client.open(path, method=method, json={"tasks": []}, headers=BASIC).status_code
        assert allowed in (200, 201, 404) or (path, allowed) == ("/ready", 503)  # there is no worker
    assert client.get("/health").status_code == 200
    assert client.get("/health", headers=BASIC).status_code == 200
    assert client.get("/health", headers=WRONG).status_code == 401  # what Label Studio sees when it connects


def test_webhooks_need_the_secret(make_app: Callable[..., Flask]) -> None:
    event = {"action": "TASKS_DELETED", "tasks": []}
    for settings_ in ({"webhook_secret": "s3cret"}, {"webhook_secret": "s3cret", "basic_auth": "studio:pass:word"}):
        client = make_app(**settings_).test_client()
        assert client.post("/webhook", json=event).status_code == 401
        assert client.post("/webhook", json=event, headers={"X-Boxlift-Secret": "s3cre"}).status_code == 401
        assert client.post("/webhook", json=event, headers={"X-Boxlift-Secret": "s3cret"}).status_code == 201
    assert client.post("/webhook", json={"action": "START_TRAINING"}, headers=BASIC).status_code == 201


def test_settings_that_cannot_protect_are_refused(desk: Desk) -> None:
    for value in ("nopassword", ":x", "x:"):
        with pytest.raises(SettingsError, match="BOXLIFT_BASIC_AUTH"):
            create_app(Settings(basic_auth=value), desk)


def test_new_tasks_are_predicted_by_themselves_if_asked_for(make_app: Callable[..., Flask], desk: Desk) -> None:
    event = {
        "action": "TASKS_CREATED",
        "project": {"id": 5, "label_config": CONFIG},
        "tasks": [
            {"id": 1, "data": {"image": "http://h/1.jpg"}, "total_predictions": 0},
            {"id": 2, "data": {"image": "http://h/2.jpg"}, "total_predictions": 1},
        ],
    }
    assert make_app().test_client().post("/webhook", json=event).get_json() == {"status": "ignored"}
    app = make_app(preannotate="yes")
    assert app.test_client().post("/webhook", json=event).get_json() == {"status": "accepted"}
    app.extensions["boxlift-background"].close()
    ((requests, interactive, wait),) = desk.asked
    assert [request.task for request in requests] == [1]
    assert (interactive, wait) == (False, 0.0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
tasks = st.fixed_dictionaries(
    {}, optional={"id": anything | st.integers(1, 9), "data": anything | st.just({"image": "http://h/1.jpg"})}
)
configs = anything | st.just(CONFIG) | st.text(max_size=60)
projects = anything | st.just({"id": 5, "label_config": CONFIG}) | st.just("5.1")
bodies = anything | st.fixed_dictionaries(
    {},
    optional={
        "tasks": anything | st.lists(tasks | anything, max_size=5),
        "project": projects,
        "label_config": configs,
        "schema": configs,
        "params": anything | st.fixed_dictionaries({}, optional={"context": anything}),
        "action": anything | st.sampled_from(["TASKS_CREATED", "PROJECT_UPDATED", "ANNOTATION_CREATED"]),
        "annotation": anything,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(payload=bodies, route=st.sampled_from(["/setup", "/predict", "/webhook", "/versions"]))
def test_no_json_makes_an_error_of_ours(make_app: Callable[..., Flask], payload: Any, route: str) -> None:
    app = make_app(preannotate="yes")
    answer = app.test_client().post(route, data=json.dumps(payload), content_type="application/json")
    app.extensions["boxlift-background"].close()
    assert answer.status_code in (200, 201, 400), answer.text
    assert "Traceback" not in answer.text
    if route == "/predict" and answer.status_code == 200:
        assert len(answer.get_json()["results"]) == len(payload["tasks"])
