"""`boxlift doctor` against real parts that work, are missing, or refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backend.cli import main
from backend.demo.photos import label_config, photos
from backend.demo.processes import free_port
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.redis_server import RedisServer

from .conftest import NETWORK

NOWHERE = "http://127.0.0.1:1"

# The command runs in this process, and label_studio_sdk calls what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


Checks = dict[str, list[dict[str, Any]]]


def doctor(environment: dict[str, str], project: int) -> tuple[int, Checks, str]:
    """Exit status, the checks by name, and everything that was printed."""
    done = CliRunner().invoke(main, ["doctor", "--json", "--project", str(project)], env=environment)
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    told = json.loads(done.stdout)
    assert told["ok"] == (done.exit_code == 0)
    checks: Checks = {}
    for check in told["checks"]:
        assert check["advice"] or check["state"] == "ok", f"{check} says nothing about what to do"
        checks.setdefault(check["name"], []).append(check)
    return done.exit_code, checks, done.output


@pytest.fixture
def working(stack: Stack) -> dict[str, str]:
    """Settings of the stack that runs."""
    return stack.environment() | {"BOXLIFT_NETWORK": NETWORK}


@pytest.fixture(scope="module")
def project(studio: StudioApi, stack: Stack, version: str) -> int:
    """A project that is connected as it should be, with a photo."""
    number = studio.create_project("sound", label_config())
    studio.connect(number, stack.backend_url, version)
    studio.upload(number, [photos()[0].path])
    return number


def test_everything_works(working: dict[str, str], stack: Stack, version: str, project: int) -> None:
    code, checks, output = doctor(working, project)
    assert {check["state"] for group in checks.values() for check in group} == {"ok"}
    assert code == 0
    assert version in checks["workers"][0]["text"]
    assert "1.23.2" in checks["label studio"][0]["text"]
    assert f"personal access token of {stack.studio.login.email}" in checks["token"][0]["text"]
    assert stack.studio.login.token not in output
    assert working["REDIS_URL"] not in output


def test_people_get_lines(working: dict[str, str]) -> None:
    done = CliRunner().invoke(main, ["doctor"], env=working | {"LABEL_STUDIO_URL": NOWHERE})
    assert done.exit_code == 1
    assert "✗ label studio" in done.output
    assert "→ set LABEL_STUDIO_URL" in done.output
    assert "✓ redis" in done.output


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("redis", "REDIS_URL", "redis://:hush@127.0.0.1:1/0"),
        ("redis", "REDIS_URL", "redis://:hush/hush@127.0.0.1:port/0"),
        ("weights", "BOXLIFT_WEIGHTS", "/nowhere/at/all.pth"),
        ("weights", "BOXLIFT_NETWORK", "vgg61"),
        ("device", "BOXLIFT_DEVICE", "cuda:99"),
        ("label studio", "LABEL_STUDIO_URL", NOWHERE),
        ("label studio", "LABEL_STUDIO_URL", ""),
        ("token", "LABEL_STUDIO_API_KEY", ""),
        ("token", "LABEL_STUDIO_API_KEY", "hush" * 10),
        ("token", "LABEL_STUDIO_API_KEY", "hush.hush.hush"),
    ],
)
def test_what_is_wrong_is_named(
    working: dict[str, str], project: int, name: str, variable: str, value: str
) -> None:
    code, checks, output = doctor(working | {variable: value}, project)
    assert code == 1
    assert [check["state"] for check in checks[name]] == ["failed"]
    assert "hush" not in output


def test_wrong_password_of_redis(working: dict[str, str], project: int, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", tcp=True) as server:
        address = server.url.rpartition("@")[2]
        code, checks, output = doctor(working | {"REDIS_URL": f"redis://:hush@{address}"}, project)
    assert code == 1
    assert "password" in checks["redis"][0]["text"]
    assert "hush" not in output


def test_redis_without_a_worker(working: dict[str, str], project: int, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        code, checks, _ = doctor(working | {"REDIS_URL": server.url}, project)
    assert code == 1
    assert checks["redis"][0]["state"] == "ok"
    assert checks["workers"][0]["state"] == "failed"
    assert "boxlift worker" in checks["workers"][0]["advice"]


def test_backend_that_is_not_there_is_a_warning(working: dict[str, str], project: int) -> None:
    code, checks, _ = doctor(working | {"BOXLIFT_PORT": str(free_port())}, project)
    assert code == 0
    assert checks["backend"][0]["state"] == "warning"
