"""Label Studio's API against a small HTTP server: addresses, and errors that say what to do and hold no token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from recorded_studio import TOKEN, running

from backend.studio import Studio
from worker.errors import StudioError


class Server(ThreadingHTTPServer):
    """Answers what it is told to, and remembers what it was asked."""

    status = 200
    body: Any = None

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", ""), sent))
        body = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


def test_a_sub_path_belongs_to_every_address(server: Server) -> None:
    server.body = {"release": "1.23.2"}
    studio = Studio(f"{server.url}/label-studio/", TOKEN)
    assert studio.ping() == "1.23.2"
    assert studio.request("GET", "api/projects/1/model-versions", "versions") == server.body
    studio.close()
    assert [path.rstrip("/") for _, path, _, _ in server.asked] == [
        "/label-studio/api/version",
        "/label-studio/api/projects/1/model-versions",
    ]


def test_a_legacy_token_is_used_as_it_is(server: Server, studio: Studio) -> None:
    assert studio.headers() == {"Authorization": f"Token {TOKEN}"}
    server.body = {"v1": 3}
    assert studio.versions(5) == {"v1": 3}
    assert server.asked[0][2] == f"Token {TOKEN}"


def test_predictions_go_in_bulk_and_created_is_counted(server: Server, studio: Studio) -> None:
    server.body = {"created": 700}
    predictions = [{"task": n, "result": [], "score": 0.0, "model_version": "v"} for n in range(1, 1502)]
    assert studio.import_predictions(5, predictions) == 1400
    assert [(method, path, len(sent)) for method, path, _, sent in server.asked] == [
        ("POST", "/api/projects/5/import/predictions", 1000),
        ("POST", "/api/projects/5/import/predictions", 501),
    ]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"detail": "Invalid token."}, "personal access token"),
        (403, {"detail": "not yours"}, "not yours"),
        (404, {"detail": "No Project matches"}, "project's number"),
        (400, {"detail": "Validation error", "validation_errors": {"title": ["too short"]}}, "too short"),
        (500, {"detail": "it broke", "exc_info": f"Traceback: {TOKEN}"}, "log"),
    ],
)
def test_refusals_say_what_to_do(server: Server, studio: Studio, status: int, body: Any, words: str) -> None:
    server.status, server.body = status, body
    with pytest.raises(StudioError, match=words) as raised:
        studio.request("GET", "api/projects/5", "project 5")
    assert raised.value.status == status
    assert TOKEN not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_nobody_there(server: Server) -> None:
    studio = Studio("http://127.0.0.1:1", TOKEN)
    with pytest.raises(StudioError, match="LABEL_STUDIO_URL") as raised:
        studio.ping()
    studio.close()
    assert raised.value.status is None


@pytest.mark.parametrize("url", ["", "ftp://studio", "http://", "//"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(StudioError, match="LABEL_STUDIO_URL"):
        Studio(url, TOKEN)


def test_credentials_in_the_address_do_not_stay_there() -> None:
    assert Studio("http://user:secret@studio.example/ls/", TOKEN).url == "http://studio.example/ls"


def test_a_missing_token_is_named() -> None:
    with pytest.raises(StudioError, match="LABEL_STUDIO_API_KEY"):
        Studio("http://studio.example", "")
