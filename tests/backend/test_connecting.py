"""Connecting a project, and what the doctor says of one, against Label Studio's recorded answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from desk import VERSION
from recorded_studio import TOKEN, RecordedStudio, running

from backend.addresses import is_loopback, own_address, refusal
from backend.cli import main
from backend.connecting import Wish, connect
from backend.project_checks import check_projects
from backend.settings import Settings
from backend.studio import Studio
from backend.studio_checks import check_backend, check_studio
from worker.errors import StudioError

BACKEND = "http://localhost:9090"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared, not bound

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture
def server(shared: Path) -> Iterator[RecordedStudio]:
    """A project, not yet connected."""
    with running(RecordedStudio(shared)) as server:
        project = server.recorded("project")
        server.say("PATCH", "/api/projects/ID", project)
        server.say("GET", "/api/ml/", [])
        made = server.recorded("ml-create-ok", url=BACKEND)
        server.say("GET", "/api/ml/ID", made)
        server.say("PATCH", "/api/ml/ID", made)
        server.say("GET", "/api/webhooks/", [])
        server.say("POST", "/api/webhooks/", hook(server), 201)
        server.say("PATCH", "/api/webhooks/ID", hook(server))
        server.say("DELETE", "/api/webhooks/ID", None, 204)
        server.recorded("model-versions")
        server.say("GET", "/api/projects/ID/model-versions", {"stub-v1": 2})
        yield server


def hook(server: RecordedStudio, **changed: Any) -> dict[str, Any]:
    [recorded] = server.recorded("webhooks-of-project")
    return dict(recorded) | {"url": f"{BACKEND}/webhook"} | changed


def test_a_blocked_address_comes_with_the_way_out(server: RecordedStudio, studio: Studio) -> None:
    server.recorded("ml-create-blocked-local-address")
    with pytest.raises(StudioError, match="ML_BLOCK_LOCAL_IP=false") as raised:
        connect(studio, 63, VERSION, Wish(BACKEND))
    assert raised.value.status == 403


@pytest.mark.parametrize("status", [400, 403])
def test_other_refusals_are_not_taken_for_a_blocked_address(
    server: RecordedStudio, studio: Studio, status: int
) -> None:
    """Addresses hold words such as `local`: only what Label Studio itself says counts."""
    server.say("POST", "/api/ml/", {"detail": "not yours: http://localhost:9090/private"}, status)
    with pytest.raises(StudioError, match="not yours") as raised:
        connect(studio, 63, VERSION, Wish(BACKEND))
    assert "ML_BLOCK_LOCAL_IP" not in str(raised.value)
    assert refusal(raised.value) is None


@pytest.mark.parametrize(("words", "advice"), [("it broke", ""), ("reserved network address", "ML_BLOCK_LOCAL_IP")])
def test_a_webhook_that_fails_says_why(server: RecordedStudio, studio: Studio, words: str, advice: str) -> None:
    server.say("POST", "/api/webhooks/", {"detail": words}, 400)
    [warning] = connect(studio, 63, VERSION, Wish(BACKEND)).warnings
    assert words in warning
    assert ("ML_BLOCK_LOCAL_IP" in warning) == bool(advice)


def test_of_several_webhooks_to_one_address_one_stays(server: RecordedStudio, studio: Studio) -> None:
    others = [
        hook(server, id=57),
        hook(server, id=58, url=f"{BACKEND}/webhook/"),
        hook(server, id=59, url="http://h"),
    ]
    server.say("GET", "/api/webhooks/", [hook(server), *others])
    report = connect(studio, 63, VERSION, Wish(BACKEND, basic_auth="u:p", webhook_secret="s"))
    assert [path.rstrip("/") for path, _ in server.sent("DELETE")] == ["/api/webhooks/57", "/api/webhooks/58"]
    [(path, sent)] = server.sent("PATCH", "/api/webhooks/")
    assert path.rstrip("/") == "/api/webhooks/56"
    assert sent["headers"] == {"X-Boxlift-Secret": "s"}
    assert report.warnings == []


def test_a_secret_alone_is_warned_of(server: RecordedStudio, studio: Studio) -> None:
    [warning] = connect(studio, 63, VERSION, Wish(BACKEND, webhook_secret="s")).warnings
    assert "BOXLIFT_BASIC_AUTH" in warning
    assert "Start training" in warning


def warnings(**settings: Any) -> list[str]:
    """What `doctor` says of a backend that runs elsewhere."""
    found = list(check_backend(Settings(port=1, **settings)))
    assert "does not answer" in found[0].text
    assert all(check.state == "warning" and check.advice for check in found)
    return [check.text for check in found[1:]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"host": "::1"}, []),
        ({"host": "127.0.0.2"}, []),
        ({"host": EVERYWHERE}, ["asks nobody"]),
        ({"host": EVERYWHERE, "webhook_secret": "s"}, ["Start training", "asks nobody"]),
        ({"webhook_secret": "s"}, ["Start training"]),
        ({"host": EVERYWHERE, "webhook_secret": "s", "basic_auth": "u:p"}, []),
        ({"host": EVERYWHERE, "basic_auth": "u:p"}, []),
    ],
)
def test_an_open_backend_is_warned_of(settings: dict[str, str], words: list[str]) -> None:
    found = warnings(**settings)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9090"),
        (EVERYWHERE, "http://127.0.0.1:9090"),
        ("::", "http://[::1]:9090"),
        ("::1", "http://[::1]:9090"),
        ("fe80::2", "http://[fe80::2]:9090"),
        ("backend.example", "http://backend.example:9090"),
    ],
)
def test_addresses(host: str, url: str) -> None:
    assert own_address(Settings(host=host)) == url
    assert is_loopback(host) == (host in ("127.0.0.1", "::1"))


@pytest.mark.parametrize("host", ["::1", "no host at all", "[::1"])
def test_no_host_makes_a_traceback(server: RecordedStudio, host: str) -> None:
    environment = {
        "BOXLIFT_HOST": host,
        "BOXLIFT_PORT": "1",
        "LABEL_STUDIO_URL": server.url,
        "LABEL_STUDIO_API_KEY": TOKEN,
    }
    done = CliRunner().invoke(main, ["connect", "--project", "63"], env=environment)
    assert isinstance(done.exception, SystemExit)
    assert "boxlift serve" in done.output
    [check] = [check for check in check_backend(Settings(host=host, port=1)) if "does not answer" in check.text]
    assert check.state == "warning"


def test_the_doctor_sees_every_webhook(server: RecordedStudio) -> None:
    settings = Settings(
        studio_url=server.url,
        studio_token=TOKEN,
        webhook_secret="s",
        basic_auth="u:p",
        redis_url="redis://127.0.0.1:1",
    )
    backend = server.recorded("ml-create-ok", url=BACKEND, title=VERSION, auth_method="BASIC_AUTH")
    server.say("GET", "/api/ml/", [backend])
    server.say("POST", "/api/ml/", {"validation_errors": {"project": ["unknown"]}}, 400)
    server.say("POST", "/api/webhooks/", {"validation_errors": {"project": ["unknown"]}}, 400)
    carrying = {"X-Boxlift-Secret": "s"}
    server.say(
        "GET",
        "/api/webhooks/",
        [hook(server, headers=carrying), hook(server, id=57, is_active=False), hook(server, id=58)],
    )
    told = "\n".join(check.text for check in check_projects(settings, (63,), BACKEND))
    assert "3 webhooks" in told
    assert "is off" in told
    assert "does not carry BOXLIFT_WEBHOOK_SECRET" in told


def test_the_doctor_knows_tokens(server: RecordedStudio) -> None:
    server.say("GET", "/api/version", {"release": "1.23.2"})
    refused = server.recorded("legacy-token-refused")
    server.say("GET", "/api/current-user/whoami", refused, 401)
    _, token = check_studio(Settings(studio_url=server.url, studio_token=TOKEN))
    assert "legacy token is refused" in token.text

    access = server.recorded("token-refresh")["access"]
    server.say("GET", "/api/current-user/whoami", {"email": "one@example.com"})
    _, token = check_studio(Settings(studio_url=server.url, studio_token="e30.e30.x"))
    assert token.text == "personal access token of one@example.com"
    assert access not in token.text


def json_web_token(seconds: float, kind: str) -> str:
    """A token that ends so many seconds from now."""
    import jwt

    return jwt.encode({"exp": time.time() + seconds, "token_type": kind}, "k" * 32, algorithm="HS256")


def test_a_personal_token_is_exchanged_again_when_its_access_token_has_ended(server: RecordedStudio) -> None:
    studio = Studio(server.url, json_web_token(86400.0, "refresh"))
    for access in (json_web_token(-1.0, "access"), json_web_token(300.0, "access")):
        server.recorded("token-refresh", access=access)
        assert studio.headers() == {"Authorization": f"Bearer {access}"}
    assert studio.headers() == {"Authorization": f"Bearer {access}"}
    studio.close()
    assert len(server.sent("POST", "/api/token/refresh")) == 2


def test_the_doctor_changes_nothing(server: RecordedStudio) -> None:
    """It asks for connections and webhooks of a project 0, which there is none of, and nothing else but GETs."""
    settings = Settings(studio_url=server.url, studio_token=TOKEN, redis_url="redis://127.0.0.1:1")
    server.say("GET", "/api/ml/", [server.recorded("ml-create-ok", url=BACKEND, title=VERSION)])
    server.say("GET", "/api/webhooks/", [])
    server.say("POST", "/api/ml/", {"validation_errors": {"project": ["unknown"]}}, 400)
    server.say("POST", "/api/webhooks/", {"validation_errors": {"project": ["unknown"]}}, 400)
    assert list(check_studio(settings))
    assert list(check_projects(settings, (63,), BACKEND))
    changes = [(path, body) for method, path, body in server.asked if method != "GET"]
    assert len(changes) == 2
    assert all(body["project"] == 0 for _, body in changes)
