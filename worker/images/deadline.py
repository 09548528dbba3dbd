"""Connections that end at a moment, however their other side spreads out what it sends.

A time-out of httpx's is one of each read: who sends a byte before each is over keeps a connection for as long as
they like, in the headers of an answer as well as in its body.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

_Option = Any  # httpcore's own name for it is not public
_Late = type[httpcore.TimeoutException]


class Deadline:
    """A moment, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; negative once it is over."""
        return self._end - time.monotonic()

    def limit(self, timeout: float | None, late: _Late) -> float:
        """What a single step may take whose own limit is `timeout` seconds. Raises `late` where no time is left."""
        left = self.left
        if left <= 0:
            raise late("the time for the whole answer is over")
        return left if timeout is None else min(timeout, left)


class Transport(httpx.HTTPTransport):
    """httpx's transport without proxies, over connections that none of their steps keeps open past a deadline."""

    def __init__(self, deadline: Deadline, context: ssl.SSLContext) -> None:
        super().__init__(verify=context, trust_env=False)
        # httpx has no parameter for it. What would be lost if it changed, tests/pipeline/test_fetch.py notices.
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=_Backend(deadline))


class _Backend(httpcore.NetworkBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_Option] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = self._deadline.limit(timeout, httpcore.ConnectTimeout)
        stream = self._sockets.connect_tcp(host, port, seconds, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.limit(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.limit(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        seconds = self._deadline.limit(timeout, httpcore.ConnectTimeout)  # of the whole handshake
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, seconds), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
