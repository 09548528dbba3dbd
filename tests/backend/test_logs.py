"""Logs: how much is said at each level, and that both forms can be read again."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from backend import logs

SAY = """
import logging
from backend.logs import configure
from backend.settings import Settings
settings = Settings.from_env()
configure(settings.log_level, settings.log_format, settings.secrets())
for name in ("boxlift.test", "httpx"):
    for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
        logging.getLogger(name).log(getattr(logging, level), "%s says %s", name, level)
"""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@pytest.mark.parametrize("level", ["", *LEVELS])
def test_what_is_said_at_each_level(level: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("BOXLIFT_")}
    env |= {"BOXLIFT_LOG_LEVEL": level} if level else {}
    told = subprocess.run([sys.executable, "-c", SAY], env=env, capture_output=True, text=True, check=True).stderr
    said = [tuple(line.split()[-3::2]) for line in told.splitlines()]
    ours = LEVELS[LEVELS.index(level or "INFO") :]
    libraries = LEVELS[max(LEVELS.index(level or "INFO"), LEVELS.index("WARNING")) :]
    assert said == [("boxlift.test", one) for one in ours] + [("httpx", one) for one in libraries]


TOLD = 'a "name"\n\x1b[2J\u202eé 鳥'


def line(form: type[logging.Formatter]) -> str:
    try:
        raise ValueError(TOLD)
    except ValueError as error:
        found = (type(error), error, error.__traceback__)
        return form().format(logging.LogRecord("boxlift", logging.ERROR, "", 0, "%s", (TOLD,), found))


def test_json_says_what_was_said() -> None:
    text = line(logs.JsonFormatter)
    assert text.isprintable(), "or a terminal would do as it says"
    entry = json.loads(text)
    assert entry["message"] == TOLD
    assert entry["traceback"].endswith(f"ValueError: {TOLD}")


def test_tracebacks_are_set_apart() -> None:
    first, *rest = line(logs.TextFormatter).split("\n")
    assert first.endswith(r'a "name"\n\x1b[2J\u202eé 鳥')
    assert rest[0] == "    | Traceback (most recent call last):"
    assert rest[-2:] == ['    | ValueError: a "name"', "    | \\x1b[2J\\u202eé 鳥"]
