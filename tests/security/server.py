"""Requests of strangers to the backend, and what it must not say."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hmac
import io
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from waitress.server import TcpWSGIServer

from backend import app as application
from backend import guard, logs, queueing, serving
from backend.app import create_app
from backend.labelling import config as configs
from backend.labelling import parse_config
from backend.redis_server import RedisServer
from backend.settings import Settings
from worker.contract import ImageRef, Request
from worker.errors import LabellingError, QueueFullError

from .attack import Attack, Scene

NOWHERE = "redis://:redis-s3cret@127.0.0.1:1/0"
PROTECTED = Settings(redis_url=NOWHERE, basic_auth="studio:pass:word", max_request_bytes=2000)
OPEN = Settings(redis_url=NOWHERE)


@functools.cache
def client(settings: Settings = PROTECTED) -> FlaskClient:
    """A client of a backend whose Redis is away."""
    app = create_app(settings)
    app.testing = False  # as in production: errors are answered, not raised
    return app.test_client()


def routes() -> list[tuple[str, str]]:
    """Method and path of everything that the backend serves."""
    rules = create_app(PROTECTED).url_map.iter_rules()
    return sorted((method, rule.rule) for rule in rules for method in rule.methods or () if rule.rule != "/health")


def basic(login: str) -> dict[str, str]:
    """The header of a user and password."""
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


LOGINS: dict[str, dict[str, str]] = {
    "nothing": {},
    "another password": basic("studio:pass"),
    "another user": basic("admin:pass:word"),
    "a user alone": basic("studio"),
    "an empty login": basic(":"),
    "the right login with a space": basic("studio:pass:word "),
    "the right words as a token": {"Authorization": "Bearer studio:pass:word"},
    "no base64": {"Authorization": "Basic %%%"},
    "the webhooks' header": {"X-Boxlift-Secret": ""},
}
PATHS = (
    "/health/../predict",
    "//predict",
    "/predict/",
    "/health/",
    "/HEALTH",
    "/health%2f..%2fpredict",
    "/nowhere",
)


def _gets_in(method: str, path: str, headers: dict[str, str]) -> Callable[[Scene], bool]:
    return lambda scene: client().open(path, method=method, json={"tasks": []}, headers=headers).status_code != 401


def _anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(guard, "refuse", lambda request, settings: None)


def _times_tell(scene: Scene) -> bool:
    """Whether a login is compared in a time that depends on how much of it is right."""
    compared: list[Any] = []
    compare = hmac.compare_digest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or compare(a, b))
        client().get("/", headers=basic("stud:wrong"))
        client(Settings(redis_url=NOWHERE, webhook_secret="s3cret")).post("/webhook", json={})
    return compared != [b"studio", b"pass:word", b"s3cret"]


def _webhook(scene: Scene) -> bool:
    settings = Settings(redis_url=NOWHERE, webhook_secret="s3cret")
    return client(settings).post("/webhook", json={"action": "TASKS_DELETED"}).status_code == 201


def _too_large(scene: Scene) -> bool:
    body = {"tasks": [], "more": "x" * 3000}
    return client().post("/predict", json=body, headers=basic("studio:pass:word")).status_code != 413


def _from_a_web_page(scene: Scene) -> bool:
    """A page in somebody's browser may post text to their localhost without asking."""
    answer = client(OPEN).post("/predict", data='{"tasks": []}', content_type="text/plain")
    return answer.status_code == 200


def _traceback(scene: Scene) -> bool:
    app = create_app(OPEN)
    app.extensions["boxlift-events"] = None
    made = app.test_client()
    return "NoneType" in made.post("/webhook", json={"action": "x"}).get_data(as_text=True)


@contextlib.contextmanager
def _served(**limits: int) -> Iterator[TcpWSGIServer]:
    """A backend that listens, whose Redis is away, with other limits than the usual ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(serving, name, limit)
        server = serving._bind(create_app(OPEN), dataclasses.replace(OPEN, port=0))
    assert isinstance(server, TcpWSGIServer)
    running = threading.Thread(target=server.run)
    running.start()
    try:
        yield server
    finally:
        # By its own thread, which may just be about to wait for what would be closed here.
        server.trigger.pull_trigger(server.close)
        running.join()
        server.task_dispatcher.shutdown()


def _connected(server: TcpWSGIServer, says: bytes) -> socket.socket:
    """A client that says only the beginning of something; create_connection would lead to the scene's victim."""
    connection = socket.socket()
    connection.connect(("127.0.0.1", int(server.effective_port)))
    connection.sendall(says)
    return connection


def _too_many_at_once(scene: Scene) -> bool:
    """Whether a client gets more connections than there are, where there are a twentieth of the usual ones."""
    with _served(CONNECTIONS=serving.CONNECTIONS // 20) as server, contextlib.ExitStack() as held:
        for _ in range(60):
            held.enter_context(_connected(server, b"GET /predict HTTP/1.1\r\n"))
        until = time.monotonic() + 3.0
        while len(server.active_channels) < 60 and time.monotonic() < until:
            time.sleep(0.05)
        return len(server.active_channels) == 60


def _silent(scene: Scene) -> bool:
    """Whether a connection that says no more is kept for five seconds, where one second of silence is allowed."""
    beginning = b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{"
    with _served(SILENCE=serving.SILENCE // 120, SWEEP=1) as server, _connected(server, beginning) as connection:
        connection.settimeout(5.0)
        try:
            return bool(connection.recv(1))
        except TimeoutError:
            return True
        except ConnectionError:
            return False


def _too_many_tasks(scene: Scene) -> bool:
    """Whether more tasks get into Redis than may wait."""
    with RedisServer() as server, queueing.connect(server.url) as redis:
        jobs = queueing.Jobs(redis, limit=5)
        requests = [Request(1, n, "boxlift-none-0", "none", (ImageRef("a.jpg", "image"),)) for n in range(20)]
        with contextlib.suppress(QueueFullError):
            jobs.submit(requests, interactive=False)
        return sum(jobs.lengths().values()) > 5


def _no_queue_limit(patch: pytest.MonkeyPatch) -> None:
    begin = queueing.Jobs.__init__
    patch.setattr(
        queueing.Jobs, "__init__", lambda self, *given, **more: begin(self, *given, **more | {"limit": 1 << 30})
    )


def _shown_settings(scene: Scene) -> bool:
    settings = Settings(
        redis_url="redis://:in-url-s3cret@h/0",
        redis_password="of-redis-s3cret",
        studio_token="t0ken-s3cret",
        basic_auth="me:login-s3cret",
        webhook_secret="webhook-s3cret",
    )
    return "s3cret" in f"{settings} {settings!r} {[settings]}"


ENTITIES = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><View>&b;</View>'
FILE = '<!DOCTYPE v [<!ENTITY f SYSTEM "file:///etc/hostname">]><View>&f;</View>'


def _read_config(text: str) -> Callable[[Scene], bool]:
    """Whether a text gets past the checks, to a parser that would do what it says."""

    def run(scene: Scene) -> bool:
        parsed: list[str] = []

        def parser(xml: str) -> None:
            parsed.append(xml)
            raise LabellingError("enough seen")

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(LabellingError):
            patch.setattr(configs, "LabelInterface", parser)
            parse_config.__wrapped__(text)
        return bool(parsed)

    return run


def _any_xml(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(configs.defusedxml.ElementTree, "fromstring", lambda *given, **options: None)


def logged(message: str, *, form: str = "text", secrets: tuple[str, ...] = (), where: str = "both") -> str:
    """What a line of the log looks like that has this text in its `message`, its `traceback` or both."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter((logs.JsonFormatter if form == "json" else logs.TextFormatter)(secrets))
    try:
        raise ValueError("nothing" if where == "message" else f"in a traceback: {message}")
    except ValueError as error:
        told = "nothing" if where == "traceback" else message
        record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", (told,), (type(error), error, None))
    handler.emit(record)
    return out.getvalue()


WHERE = ("message", "traceback")
FORGED = "2026-01-31T00:00:00.000 INFO boxlift.worker all is well"


def _forged(where: str, form: str) -> Callable[[Scene], bool]:
    return lambda scene: FORGED in logged(f"http://h/\n{FORGED}\n", where=where, form=form).splitlines()


def _commands(where: str, form: str) -> Callable[[Scene], bool]:
    """Whether a terminal that shows the log would do something, or show letters in another order."""

    def run(scene: Scene) -> bool:
        text = logged("http://h/\x1b[2J \x9b2J \u202egpj.exe \u2066", where=where, form=form)
        assert "gpj.exe" in text, "nothing was logged: nothing was tried"
        return any(sign in text for sign in "\x1b\x9b\u202e\u2066")

    return run


def _no_escapes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(logs, "_CONTROL", re.compile("(?!)"))
    patch.setattr(logs, "_MARK", "")


def _raw_json(patch: pytest.MonkeyPatch) -> None:
    _no_escapes(patch)
    dumps = logs.json.dumps
    patch.setattr(logs.json, "dumps", lambda *given, **options: dumps(*given, **options).replace("\\n", "\n"))


def _shown(form: str) -> Callable[[Scene], bool]:
    settings = Settings(
        redis_url="redis://:p%40ss%22w@h/0", studio_token="t0ken-of-studio", basic_auth="me:passw0rd"
    )

    def run(scene: Scene) -> bool:
        told = f'{settings.redis_url} p@ss"w {settings.studio_token} {basic(settings.basic_auth)} passw0rd'
        text = logged(told, form=form, secrets=settings.secrets())
        assert "Authorization" in text, "nothing was logged: nothing was tried"
        return any(part in text for part in ("p@ss", "p%40ss", "t0ken", "passw0rd", "bWU6"))

    return run


ATTACKS = [
    *(
        Attack(f"{method} {path} with {name}", _gets_in(method, path, headers), _anybody)
        for method, path in routes()
        for name, headers in LOGINS.items()
    ),
    *(Attack(f"path {path}", _gets_in("POST", path, {}), _anybody) for path in PATHS),
    Attack(
        "measuring the time of a comparison",
        _times_tell,
        lambda patch: patch.setattr(guard, "_same", lambda given, wanted: given == wanted),
    ),
    Attack("webhook without its secret", _webhook, _anybody),
    Attack("large request", _too_large, lambda patch: patch.setattr("flask.Request.max_content_length", None)),
    Attack("request of a web page", _from_a_web_page, lambda patch: patch.setattr("flask.Request.is_json", True)),
    Attack(
        "traceback in an answer",
        _traceback,
        lambda patch: patch.setattr(application, "on_exception", lambda error: (str(error), 500)),
    ),
    Attack(
        "more connections than there are",
        _too_many_at_once,
        lambda patch: patch.setattr(serving, "CONNECTIONS", 1 << 20),
    ),
    Attack("silence", _silent, lambda patch: patch.setattr(serving, "SILENCE", 1 << 20)),
    Attack("more tasks than may wait", _too_many_tasks, _no_queue_limit),
    Attack(
        "settings that are shown",
        _shown_settings,
        lambda patch: patch.setattr(Settings, "__repr__", lambda self: repr(vars(self))),
    ),
    Attack("entities in a labelling config", _read_config(ENTITIES), _any_xml),
    Attack("file in a labelling config", _read_config(FILE), _any_xml),
    Attack(
        "endless labelling config",
        _read_config("<View>" + " " * (configs.MAX_CONFIG) + "</View>"),
        lambda patch: patch.setattr(configs, "MAX_CONFIG", 1 << 40),
    ),
    *(Attack(f"forged line in a log's {where}", _forged(where, "text"), _no_escapes) for where in WHERE),
    *(Attack(f"forged line in a log's {where} as json", _forged(where, "json"), _raw_json) for where in WHERE),
    *(
        Attack(f"commands to a terminal in a log's {where} as {form}", _commands(where, form), _no_escapes)
        for where in WHERE
        for form in ("text", "json")
    ),
    *(
        Attack(
            f"secrets in a log as {form}",
            _shown(form),
            lambda patch: patch.setattr(logs, "_spellings", lambda s: ()),
        )
        for form in ("text", "json")
    ),
]
