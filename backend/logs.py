"""Logs of Boxlift's own processes: one line an event, with the task's and the job's ids in fields.

As text: `2026-01-31T12:00:00 WARNING boxlift.worker failed: … event=failed job=bl1-3-17-0a1b project=3 task=17`;
as JSON (BOXLIFT_LOG_FORMAT=json): the same as one object a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("httpx", "httpcore", "rq", "urllib3", "waitress.queue")
"""Libraries whose every step would drown our own lines."""


class TextFormatter(logging.Formatter):
    """A readable line, then the fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname} {record.name} {record.getMessage()}"
        line += "".join(f" {name}={value}" for name, value in _fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _moment(record), "level": record.levelname, "logger": record.name}
        entry |= {"message": record.getMessage()} | _fields(record)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(level: str = "INFO", form: str = "text") -> None:
    """Send all logs to standard error, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created)) + f".{record.msecs:03.0f}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}
