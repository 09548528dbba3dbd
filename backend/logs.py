"""Logs of Boxlift's own processes: one line an event, with the task's and the job's ids in fields.

As text: `2026-01-31T12:00:00 WARNING boxlift.worker failed: … event=failed job=bl1-3-17-0a1b project=3 task=17`;
as JSON (BOXLIFT_LOG_FORMAT=json): the same as one object a line.

Whatever a library may have put into a message or a traceback, known secrets are taken out of it, and text that
strangers chose (addresses, names) can neither begin a line of its own nor steer a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("httpx", "httpcore", "rq", "urllib3", "waitress.queue")
"""Libraries whose every step would drown our own lines, at any level."""

HIDDEN = "***"
"""Stands where a secret was."""
_SHORTEST = 4
"""Characters that a secret needs: a shorter one would also be found in everything else."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What begins a line, steers a terminal, or turns the direction of writing."""
_MARK = "    | "
"""Begins each line of a traceback, so that none of them looks like a line of the log."""


class _Formatter(logging.Formatter):
    """Lines without the secrets."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        spelt = {form for secret in secrets if len(secret) >= _SHORTEST for form in _spellings(secret)}
        self._secrets = sorted(spelt, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record)
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return line

    def line(self, record: logging.LogRecord) -> str:
        """A record as it is written, secrets included."""
        raise NotImplementedError


class TextFormatter(_Formatter):
    """A readable line, then the fields as name=value."""

    def line(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname} {record.name} {record.getMessage()}"
        line += "".join(f" {name}={value}" for name, value in _fields(record).items())
        lines = [_escaped(line)]
        if record.exc_info:
            lines += [_MARK + _escaped(part) for part in self.formatException(record.exc_info).split("\n")]
        return "\n".join(lines)


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def line(self, record: logging.LogRecord) -> str:
        entry = {"time": _moment(record), "level": record.levelname, "logger": record.name}
        entry |= {"message": record.getMessage()} | _fields(record)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        # JSON itself escapes what is below a space; what is above would reach whoever prints the lines.
        return _CONTROL.sub(
            lambda found: f"\\u{ord(found[0]):04x}", json.dumps(entry, default=str, ensure_ascii=False)
        )


def configure(level: str = "INFO", form: str = "text", secrets: Iterable[str] = ()) -> None:
    """Send all logs to standard error, as `text` or `json`, with `secrets` (see Settings.secrets) left out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((JsonFormatter if form == "json" else TextFormatter)(secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _escaped(text: str) -> str:
    """Text that keeps to its line, control characters as Python writes them: `\\n`, `\\x1b`, `\\u202e`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _spellings(secret: str) -> tuple[str, ...]:
    """A secret as it is, in an address, and in JSON."""
    return secret, quote(secret), quote(secret, safe=""), json.dumps(secret, ensure_ascii=False)[1:-1]


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created)) + f".{record.msecs:03.0f}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}
