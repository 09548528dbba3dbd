"""A backend process on a Redis of its own, with workers that take their time: for scripts that press it hard."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import redis
from PIL import Image

from backend.queueing import live_workers
from backend.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[1]
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Cat"/><Label value="Dog"/></RectangleLabels></View>'
)


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 200, 200)).save(out, "PNG")
    return out.getvalue()


PHOTO = _png()


class _Photo(BaseHTTPRequestHandler):
    """The same picture at every address."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PHOTO)))
        self.end_headers()
        self.wfile.write(PHOTO)


@dataclass(frozen=True)
class Live:
    """What runs."""

    url: str
    photos: str
    """Where any number of photos can be had."""
    backend: subprocess.Popen[bytes]
    log: Path
    redis: redis.Redis


@contextmanager
def _photos() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Photo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def live(*, workers: int = 1, seconds: float = 1.0, **settings: str) -> Iterator[Live]:
    """A backend and `workers` stand-ins that take `seconds` for an image; `settings` are environment variables."""
    temporary = tempfile.TemporaryDirectory(prefix="boxlift-live-")
    with temporary as folder, RedisServer() as server, _photos() as photos:
        log = Path(folder) / "log"
        env = os.environ | {"REDIS_URL": server.url, "BOXLIFT_PORT": "0"} | settings
        processes = []
        try:
            with log.open("wb") as output, redis.Redis.from_url(server.url) as client:
                backend = subprocess.Popen(
                    [sys.executable, "-m", "backend.cli", "serve"], cwd=ROOT, env=env, stderr=output
                )
                processes.append(backend)
                about = json.dumps({"url": server.url, "seconds": seconds, "hosts": ["127.0.0.1"]})
                stub = [sys.executable, str(ROOT / "tests" / "queue" / "stub_worker.py"), about]
                processes += [subprocess.Popen(stub, cwd=ROOT, env=env) for _ in range(workers)]
                yield Live(_address(backend, log, client, workers), photos, backend, log, client)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def _address(backend: subprocess.Popen[bytes], log: Path, client: redis.Redis, workers: int) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and backend.poll() is None:
        found = re.search(r"listening on (http://\S+)", log.read_text())
        if found and live_workers(client).count >= workers:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"the backend or a worker did not start:\n{log.read_text()}")
