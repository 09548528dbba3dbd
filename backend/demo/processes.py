"""Child processes with a log file, that never outlive the demo."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from backend.demo import tether
from worker.errors import BoxliftError

LOOPBACK = "127.0.0.1"


class ProcessError(BoxliftError):
    """A process that the demo started ended, or did not become ready; the message ends with its log's tail."""


def free_port(preferred: int = 0) -> int:
    """`preferred` if nothing listens there, else a free port of the loopback address."""
    for port in dict.fromkeys((preferred, 0)):
        with socket.socket() as probe:
            # As servers do: a port that only waits for its last connections to fade is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ProcessError(f"no free port on {LOOPBACK}")


def base_environment(*, keep: Sequence[str] = ()) -> dict[str, str]:
    """Environment for a child: the machine's locale and folders, none of the caller's settings or proxies."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", *keep)
    return {name: os.environ[name] for name in names if name in os.environ}


class Child:
    """A started command: its own process group, output in `log`, stopped by `stop` or by the parent's end."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # The tether is one plain file, run by path: nothing of ours reaches another environment's Python.
        tethered = [sys.executable, "-I", tether.__file__, str(os.getpid()), *command]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                tethered,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id; the process group has the same."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise ProcessError if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise ProcessError(f"{self.name} ended with status {code}. {self._log_end()}")

    def wait_until(self, ready: Callable[[], bool], *, seconds: float, pause: float = 0.1) -> None:
        """Poll `ready` until it is true. Raises ProcessError if the process ends first, or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready after {seconds:.0f} s. {self._log_end()}")
            time.sleep(pause)

    def tail(self, lines: int = 30) -> str:
        """Last lines of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _log_end(self) -> str:
        return f"The end of its log, {self.log}:\n{self.tail()}"

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stop(self, seconds: float = 10.0) -> None:
        """Ask it and its own children to end; end them by force after `seconds`."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        # Whatever is left of the group, the process itself included.
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        # macOS answers EPERM for a group that is gone.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
