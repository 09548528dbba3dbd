"""Access tokens that end: a server whose clock is set by the test, and which takes its time to look at them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from recorded_studio import running

from backend import tokens
from backend.studio import Studio

KEY = "k" * 32
LIFE = 300.0
"""Seconds that Label Studio's access tokens are good for."""

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@dataclass
class Clock:
    """Seconds since the test began, as the backend measures them."""

    now: float = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.now


class Server(ThreadingHTTPServer):
    """Makes access tokens, and takes none that has ended when it gets to look at it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch = time.time()
        self.ahead = 0.0
        """Seconds by which its clock is ahead of the backend's."""
        self.busy = 0.0
        """Seconds until it looks at a request."""
        self.renewed: list[str] = []
        """Paths at which tokens were asked for."""
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def now(self) -> float:
        return self._epoch + self.ahead + self._clock.now

    def personal(self) -> str:
        """A personal access token."""
        return jwt.encode({"token_type": "refresh", "exp": self.now + 1e9}, KEY)

    def access(self) -> str:
        return jwt.encode({"token_type": "access", "iat": self.now, "exp": self.now + LIFE}, KEY)

    def takes(self, header: str) -> bool:
        claims = jwt.decode(
            header.removeprefix("Bearer "), KEY, ["HS256"], options={"verify_exp": False, "verify_iat": False}
        )
        return bool(claims["exp"] > self.now + self.busy)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/api/token/refresh/"):
            self.server.renewed.append(self.path)
            self._say(200, {"access": self.server.access()})
        else:
            good = self.server.takes(self.headers["Authorization"])
            self._say(200 if good else 401, {"email": "a@b.c"} if good else {"detail": "the token has ended"})

    do_POST = do_GET  # noqa: N815

    def _say(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tokens, "time", clock)
    return clock


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    with running(Server(clock)) as server:
        yield server


@pytest.fixture
def studio(server: Server) -> Iterator[Studio]:
    studio = Studio(server.url, server.personal())
    yield studio
    studio.close()


def test_no_token_ends_on_its_way(server: Server, studio: Studio, clock: Clock) -> None:
    server.busy = 55.0
    for clock.now in range(0, 1300, 10):
        assert server.takes(studio.headers()["Authorization"]), f"after {clock.now} s"
    clock.now += LIFE - 50
    assert studio.user() == "a@b.c", "calls of the SDK"
    assert len(server.renewed) == 7


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_clocks_need_not_agree(server: Server, studio: Studio, clock: Clock, ahead: float) -> None:
    server.ahead = ahead
    for clock.now in (0, 100, 200, 299, 301):
        assert studio.user() == "a@b.c", f"after {clock.now} s"
    assert len(server.renewed) == 2


def test_threads_renew_it_once(server: Server, studio: Studio) -> None:
    with ThreadPoolExecutor(8) as threads:
        headers = set(threads.map(lambda _: studio.headers()["Authorization"], range(32)))
    assert (len(headers), len(server.renewed)) == (1, 1)


def test_a_path_before_the_api_stays(server: Server) -> None:
    studio = Studio(f"{server.url}/label-studio/", server.personal())
    assert studio.user() == "a@b.c"
    studio.close()
    assert server.renewed == ["/label-studio/api/token/refresh/"]
