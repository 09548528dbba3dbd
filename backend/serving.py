"""The backend as a process: waitress around the application, and an end that drops no answer."""

from __future__ import annotations

import _thread
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import waitress
from waitress.server import BaseWSGIServer, MultiSocketServer
from waitress.task import ThreadedTaskDispatcher

from backend.addresses import is_loopback
from backend.app import create_app
from backend.delivery import delivering
from backend.settings import Settings
from worker.errors import SettingsError

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger("boxlift.backend")

URGENT = ("/health", "/ready")
CONNECTIONS = 400
"""Most open connections; those that no thread serves yet wait."""
SILENCE = 120
"""Seconds after which a connection that says nothing is closed."""
SWEEP = 30
"""Seconds between two looks at who is silent."""
FLUSH = 0.5
"""Seconds that a finished answer gets to leave before the process ends."""


class Counted:
    """A WSGI application that knows how many requests it is at."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.active = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.active += 1
        try:
            return self._app(environ, start_response)
        finally:
            with self._lock:
                self.active -= 1


class HealthFirst(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """Hands requests to threads in the order that they come in, but /health and /ready before all others.

    Whoever watches over the backend asks there, and must not take a busy one for a dead one.
    """

    def add_task(self, task: Any) -> None:
        """Queue a connection whose next request is complete."""
        urgent = bool(task.requests) and task.requests[0].path in URGENT
        with self.lock:
            (self.queue.appendleft if urgent else self.queue.append)(task)
            self.queue_cv.notify()


def serve(settings: Settings, *, deliver: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises SettingsError where the address cannot be bound."""
    from backend.logs import configure

    configure(settings.log_level, settings.log_format, settings.secrets())
    app = create_app(settings)
    counted = Counted(app.wsgi_app)
    app.wsgi_app = counted  # type: ignore[method-assign]  # Flask's own way to wrap an application
    server = _bind(app, settings)
    if not (settings.basic_auth or is_loopback(settings.host)):
        log.warning("%s can be reached by others: set BOXLIFT_BASIC_AUTH", settings.host)
    signal.signal(signal.SIGTERM, _Ending(counted, settings.answer_seconds + 1.0))
    with delivering(settings) if deliver else contextlib.nullcontext():
        for host, port in _addresses(server):
            log.info("listening on http://%s:%s", f"[{host}]" if ":" in str(host) else host, port)
        server.run()
    for name in ("boxlift-background", "boxlift-drafts"):
        app.extensions[name].close()
    log.info("stopped")


def _bind(app: Flask, settings: Settings) -> BaseWSGIServer | MultiSocketServer:
    dispatcher = HealthFirst()
    dispatcher.set_thread_count(max(2, settings.threads))
    try:
        return waitress.create_server(
            app,
            _dispatcher=dispatcher,
            host=settings.host,
            port=settings.port,
            connection_limit=CONNECTIONS,
            channel_timeout=SILENCE,
            cleanup_interval=SWEEP,
            max_request_body_size=settings.max_request_bytes,
            clear_untrusted_proxy_headers=True,
            ident="boxlift",
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port} ({error}): "
            "set BOXLIFT_HOST and BOXLIFT_PORT to a free address of this machine"
        ) from None


def _addresses(server: BaseWSGIServer | MultiSocketServer) -> list[tuple[str, int]]:
    if isinstance(server, MultiSocketServer):
        return [(str(host), int(port)) for host, port in server.effective_listen]
    return [(str(server.effective_host), int(server.effective_port))]


class _Ending:
    """Handler of SIGTERM: lets requests being answered finish, for `seconds` at most, then ends the server.

    A second signal ends it at once.
    """

    def __init__(self, counted: Counted, seconds: float) -> None:
        self._counted = counted
        self._seconds = seconds
        self._begun = False

    def __call__(self, number: int, frame: object) -> None:
        if self._begun:
            raise SystemExit(0)
        self._begun = True
        log.info("stopping: %d requests are being answered", self._counted.active)
        threading.Thread(target=self._drain, args=(number,), name="drain", daemon=True).start()

    def _drain(self, number: int) -> None:
        deadline = time.monotonic() + self._seconds
        while self._counted.active and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(FLUSH)
        _thread.interrupt_main(signal.Signals(number))
