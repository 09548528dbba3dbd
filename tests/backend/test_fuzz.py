"""Whatever is sent to a running backend, on any route, by many at once: no 500, no traceback, no hang."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from desk import VERSION, Desk
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from serving import PATIENCE, Served

from backend.app import create_app
from backend.labelling.imagenet import taxonomy
from backend.queueing import connect
from backend.redis_server import RedisServer
from backend.settings import Settings
from worker.contract import MODEL_KEY, WORKERS_KEY, Model

CONFIG = (
    '<View><Image name="image" value="$image"/><KeyPointLabels name="tag" toName="image" smart="true">'
    '<Label value="Dog"/></KeyPointLabels><RectangleLabels name="label" toName="image" smart="true">'
    '<Label value="Dog"/></RectangleLabels></View>'
)
TASK = {"id": 1, "project": 5, "data": {"image": "http://h/1.jpg"}, "annotations": [], "predictions": []}
PROJECT = {"id": 5, "label_config": CONFIG}
RESULT = {"id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "origin": "manual"} | {
    "value": {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["Dog"]}
}
CLICK = {"type": "keypointlabels", "to_name": "image", "value": {"x": 1, "y": 2, "keypointlabels": ["Dog"]}}
ANNOTATION = {"id": 3, "task": 1, "result": [RESULT], "was_cancelled": False, "parent_prediction": 9}
REQUEST = {"tasks": [TASK], "project": "5.17", "label_config": CONFIG, "params": {"context": None}}
EVENTS = (
    {"action": "TASKS_CREATED", "project": PROJECT, "tasks": [TASK]},
    {"action": "TASKS_DELETED", "project": PROJECT, "tasks": [{"id": 1}]},
    {"action": "PROJECT_UPDATED", "project": PROJECT},
    *(
        {"action": f"ANNOTATION_{what}", "project": PROJECT, "task": TASK, "annotation": ANNOTATION}
        for what in ("CREATED", "UPDATED")
    ),
    {"action": "ANNOTATIONS_CREATED", "project": PROJECT, "task": [TASK], "annotation": [ANNOTATION]},
    {"action": "ANNOTATIONS_DELETED", "project": PROJECT, "annotations": [{"id": 3}]},
    {"action": "LABEL_LINK_CREATED", "label_link": {"id": 1}},
    {"action": "START_TRAINING", "project": PROJECT},
)
GOOD = (
    REQUEST,
    REQUEST | {"params": {"context": {"result": [CLICK, RESULT]}}},
    {"project": "5.17", "schema": CONFIG, "hostname": "http://h", "access_token": "x", "extra_params": {"a": 1}},
    *EVENTS,
)
"""What Label Studio sends; the fuzzer breaks it somewhere."""
ROUTES = sorted(str(rule) for rule in create_app(Settings(), Desk()).url_map.iter_rules())
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND")
TYPES = (
    "application/json",
    "application/json; charset=utf-16",
    "application/json; charset=no-such-thing",
    "application/vnd.api+json",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "text/plain",
    "image/png",
    "",
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "\x00", "5.1", "../..", "data:image/png;base64,AAAA", "$image", "<View>", CONFIG])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def broken(draw: st.DrawFn) -> Any:
    """Something that Label Studio sends, with a few of its parts replaced or removed."""
    body = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(0, 3))):
        here: Any = body
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and draw(st.booleans()):
                here = here[key]
                continue
            if draw(st.booleans()):
                here[key] = draw(anything)
            else:
                del here[key]
            break
    return body


texts = st.builds(lambda value: json.dumps(value).encode(), broken() | anything)
payloads = (
    texts
    | st.builds(lambda text, cut: text[: cut % (len(text) + 1)], texts, st.integers(0, 10_000))
    | st.binary(max_size=200)
    | st.sampled_from([b"", b"[" * 50_000, b"{" * 50_000, b'{"a":' * 20_000, b"1" * 100_000, b"NaN", b"\xff\xfe"])
    | st.just(b'--x\r\nContent-Disposition: form-data; name="tasks"\r\n\r\n[]\r\n--x--\r\n')
)


@dataclass(frozen=True, repr=False)
class Sent:
    """One request."""

    method: str
    path: str
    content: bytes
    headers: dict[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.method} {self.path[:80]} {self.headers} {self.content[:500]!r}"


PATHS = (*ROUTES, *ROUTES, "/%00", "/%ff", "//", "/predict/", "/../etc/passwd", "/metrics/x")
HEADERS = ("Authorization", "X-Boxlift-Secret", "Cookie", "Accept", "Host", "X-Forwarded-For")
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
values |= st.sampled_from(["Basic %%%", "Basic ", "Bearer x", "Digest a=b", "Token \xff"])


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """Any request; most are JSON, posted to a route that there is."""
    others = draw(st.dictionaries(st.sampled_from(HEADERS), values, max_size=2))
    kind = draw(st.sampled_from(("application/json", "application/json", "application/json", *TYPES)))
    return Sent(
        method=draw(st.sampled_from(("POST", "POST", "POST", *METHODS))),
        path=draw(st.sampled_from(PATHS)) + draw(st.sampled_from(("", "", "?a=%ff&b", "?" + "x" * 2000))),
        content=draw(payloads),
        headers={"Content-Type": kind.encode()} | {name: text.encode("latin-1") for name, text in others.items()},
    )


@pytest.fixture(scope="module", params=["open", "guarded"])
def running(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A backend on a Redis with a model and a worker that never takes anything; with and without its protection.

    When it is told to end, its log must hold no fault.
    """
    protection = {"BOXLIFT_BASIC_AUTH": "studio:pass", "BOXLIFT_WEBHOOK_SECRET": "s3cret"}
    with RedisServer() as server:
        client = connect(server.url)
        client.set(MODEL_KEY, json.dumps(Model(VERSION, "vgg16", taxonomy().names).to_dict()))
        client.hset(WORKERS_KEY, "mute", json.dumps({"rate": 10.0, "seen": client.time()[0]}))
        client.close()
        served = Served(
            server,
            BOXLIFT_PREANNOTATE="yes",
            BOXLIFT_ANSWER_SECONDS="0.05",
            BOXLIFT_THREADS="8",
            **(protection if request.param == "guarded" else {}),
        )
        try:
            yield served
        finally:
            log = served.end()
        assert "Traceback" not in log
        assert "unexpected error" not in log


def send(url: str, sent: Sent) -> None:
    """Send it, and check the answer. With Python's own client: others refuse to send what is not well-formed."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port or 0, timeout=PATIENCE)
    try:
        connection.request(sent.method, sent.path, sent.content, sent.headers)  # type: ignore[arg-type]  # bytes too
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    assert answer.status < 500, text
    assert "Traceback" not in text
    assert 'File "' not in text
    if answer.status >= 400 and text and "json" in answer.headers.get("Content-Type", ""):
        assert json.loads(text)["error"]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # many at once: a smaller example proves nothing
)
@given(many=st.lists(requests(), min_size=8, max_size=12))
def test_anything_from_many_at_once(running: Served, many: list[Sent]) -> None:
    with ThreadPoolExecutor(len(many)) as threads:
        for _ in threads.map(functools.partial(send, running.url), many):
            pass
    assert httpx.get(f"{running.url}/health", timeout=PATIENCE, trust_env=False).json()["status"] == "UP"
    assert running.process.poll() is None


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
        b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999\r\nContent-Type: application/json\r\n\r\n{",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_even_http(running: Served, raw: bytes) -> None:
    """Whoever sends it gets a refusal or nothing, and others do not notice."""
    address = urlsplit(running.url)
    answer = b""
    with (
        socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE) as connection,
        contextlib.suppress(ConnectionError),  # hung up on: that is a refusal too
    ):
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)  # no more will come: half a request must not be waited for
        while part := connection.recv(1 << 16):
            answer += part
    status = answer.split(b" ", 2)[1:2]
    assert not status or not status[0].startswith(b"5") or status[0] in (b"501", b"505"), answer[:300]
    assert b"Traceback" not in answer
    assert httpx.get(f"{running.url}/health", timeout=PATIENCE, trust_env=False).status_code == 200
    assert running.process.poll() is None
