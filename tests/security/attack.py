"""An attack, the guard that stands in its way, and how to take the guard away.

`run` is true where the attacker got what they wanted. With its guard every attack must fail, and without it the
same attack must succeed: otherwise the test would not notice if the guard were lost.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PUBLIC = ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946")
"""Addresses of the internet. Tests reach none: connections to them are refused."""
INSIDE = b"what is only for those inside"


@dataclass(frozen=True)
class Attack:
    """One row of a table of attacks."""

    name: str
    run: Callable[[Scene], bool]
    remove: Callable[[pytest.MonkeyPatch], object]

    def __str__(self) -> str:
        return self.name


@dataclass
class Answer:
    """What the victim's web server answers at a path."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = INSIDE
    pause: float = 0.0
    """Seconds before each part of the body."""
    parts: int = 10
    in_headers: bool = False
    """Whether the body's parts come as a header that does not end before them."""


class Victim(ThreadingHTTPServer):
    """A web server inside, which strangers have no business with; it remembers who asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, Answer] = {}
        self.sent: list[str] = []
        """Paths whose answers somebody took to their end."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Victim

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        import time

        self.server.seen.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path.partition("?")[0], Answer())
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.in_headers:
            self.flush_headers()
            self.wfile.write(b"X-Padding: ")
        else:
            self.end_headers()
        step = max(1, -(-len(answer.body) // answer.parts))
        for first in range(0, len(answer.body), step):
            time.sleep(answer.pause)
            self.wfile.write(answer.body[first : first + step])
        if answer.in_headers:
            self.wfile.write(b"\r\n\r\n")
        self.server.sent.append(self.path)


@dataclass
class Scene:
    """Where attacks take place: a folder, and a network in which everything but PUBLIC leads to the victim."""

    folder: Path
    victim: Victim
    names: dict[str, list[list[str]]] = field(default_factory=dict)
    """Host names, and the addresses that they have at the first, second, … question."""

    @property
    def port(self) -> int:
        return self.victim.server_port

    @property
    def reached(self) -> bool:
        """Whether anybody spoke to the victim."""
        return bool(self.victim.seen)


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """A scene with its network in place."""
    patch = pytest.MonkeyPatch()
    look_up, connect = socket.getaddrinfo, socket.create_connection
    with Victim() as victim:
        made = Scene(folder, victim)

        def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
            answers = made.names.get(host)
            if answers is None:
                return list(look_up(host, port, *args, **kwargs))
            chosen = answers.pop(0) if len(answers) > 1 else answers[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in chosen]

        def create_connection(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
            ip = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][4][0]
            if ip in PUBLIC:
                raise ConnectionRefusedError("tests reach nobody outside")
            kwargs.pop("source_address", None)
            return connect(("127.0.0.1", victim.server_port), *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        patch.setattr(socket, "create_connection", create_connection)
        thread = threading.Thread(target=victim.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            patch.undo()
            victim.shutdown()
            thread.join()
