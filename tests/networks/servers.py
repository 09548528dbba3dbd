"""A real web server on this machine that serves one file, well or badly."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = 64 << 10


class FileServer(ThreadingHTTPServer):
    """Serves `content` under any path. The switches make it misbehave; `started` counts requests."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.status = 200
        self.sends: int | None = None
        """Bytes after which the connection is cut; None for all."""
        self.pause_after: int | None = None
        """Bytes after which the server waits for `go_on`."""
        self.paused = threading.Event()
        self.go_on = threading.Event()
        self.started = 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.started += 1
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        content = server.content if server.sends is None else server.content[: server.sends]
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(content), CHUNK):
                if server.pause_after is not None and start >= server.pause_after:
                    server.paused.set()
                    server.go_on.wait()
                self.wfile.write(content[start : start + CHUNK])
                self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    server = FileServer(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
