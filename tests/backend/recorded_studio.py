"""A server that answers as the recorded Label Studio did, for what a real one cannot be made to say in a test."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from desk import recordings

TOKEN = "0123456789abcdef0123456789abcdef01234567"


class RecordedStudio(ThreadingHTTPServer):
    """Answers with what `say` and `recorded` put in; remembers what it was asked. Anything else is a 404."""

    def __init__(self, folder: Path | None = None) -> None:
        self._recordings = dict(recordings(folder, "api")) if folder else {}
        self._answers: list[tuple[str, re.Pattern[str], int, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def say(self, method: str, path: str, body: Any, status: int = 200) -> None:
        """Answer so from now on; `path` with ID for any number, without its query."""
        pattern = re.compile(re.escape(path.partition("?")[0].rstrip("/")).replace("ID", r"\d+"))
        self._answers.insert(0, (method, pattern, status, body))

    def recorded(self, name: str, **changed: Any) -> Any:
        """Answer what was asked in this recording as Label Studio did then; its body, with fields `changed`."""
        recording = self._recordings[f"api-{name}"]
        request, answer = recording["request"], recording["response"]
        body = answer["body"] | changed if changed else answer["body"]
        self.say(request["method"], request["path"], body, answer["status"])
        return body

    def sent(self, method: str, path: str = "") -> list[tuple[str, Any]]:
        """Paths and bodies of the requests with this method, whose path starts so."""
        return [(asked, body) for how, asked, body in self.asked if how == method and asked.startswith(path)]

    def find(self, method: str, path: str) -> tuple[int, Any]:
        plain = path.partition("?")[0].rstrip("/")
        for how, pattern, status, body in self._answers:
            if how == method and pattern.fullmatch(plain):
                return status, body
        return 404, {"detail": f"nothing was recorded for {method} {plain}"}


class _Handler(BaseHTTPRequestHandler):
    server: RecordedStudio

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, sent))
        status, body = self.server.find(self.command, self.path)
        content = b"" if status == 204 else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


Server = TypeVar("Server", bound=ThreadingHTTPServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve in a thread of its own."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
