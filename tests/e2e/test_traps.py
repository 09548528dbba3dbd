"""`boxlift doctor` finds what people trip over in a real Label Studio, and says what to do about it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backend.cli import main
from backend.demo.photos import label_config, photos
from backend.demo.processes import free_port
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.demo.studio_server import StudioServer
from backend.studio_checks import ends

from .conftest import NETWORK
from .test_doctor import doctor

SMART = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" smart="true">'
    '<Label value="Panda" predicted_values="giant panda"/></RectangleLabels></View>'
)

# The command runs in this process, and label_studio_sdk calls what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


class Broken:
    """A sound project, to be broken by a test."""

    def __init__(self, stack: Stack, studio: StudioApi, version: str) -> None:
        self.stack, self.studio, self.version = stack, studio, version
        self.environment = stack.environment() | {"BOXLIFT_NETWORK": NETWORK}
        self.number = studio.create_project("traps", label_config())
        self.backend = studio.connect(self.number, stack.backend_url, version)
        studio.upload(self.number, [photos()[0].path])

    def project(self, **values: Any) -> None:
        """Change the project's settings."""
        self.studio.call("PATCH", f"/api/projects/{self.number}/", json=values)

    def connection(self, **values: Any) -> None:
        """Change the connection."""
        body = {"project": self.number, "url": self.stack.backend_url, **values}
        self.studio.call("PATCH", f"/api/ml/{self.backend['id']}", json=body)

    def hooks(self) -> list[dict[str, Any]]:
        """The project's webhooks."""
        return list(self.studio.call("GET", "/api/webhooks/", params={"project": self.number}))

    def checks(self) -> list[dict[str, Any]]:
        """What the doctor says about the project, or about the address of its backend."""
        _, checks, _ = doctor(self.environment, self.number)
        return [*checks.get(f"project {self.number}", []), *checks.get("address", []), *checks["backend"]]


@pytest.fixture
def broken(stack: Stack, studio: StudioApi, version: str) -> Broken:
    return Broken(stack, studio, version)


def other_version(broken: Broken) -> None:
    """Predictions of another model were stored, and the project shows their scores."""
    [task] = [task["id"] for task in broken.studio.tasks(broken.number)]
    body = [{"task": task, "result": [], "score": 0.1, "model_version": "another"}]
    broken.studio.call("POST", f"/api/projects/{broken.number}/import/predictions", json=body)
    broken.project(model_version="another")


def no_webhook(broken: Broken) -> None:
    for hook in broken.hooks():
        broken.studio.call("DELETE", f"/api/webhooks/{hook['id']}/")


def idle_webhook(broken: Broken) -> None:
    [hook] = broken.hooks()
    broken.studio.call("PATCH", f"/api/webhooks/{hook['id']}/", json={"url": hook["url"], "is_active": False})


def other_title(broken: Broken) -> None:
    """The project's version is right only as long as nobody touches the connection again."""
    other_version(broken)
    [task] = [task["id"] for task in broken.studio.tasks(broken.number)]
    body = [{"task": task, "result": [], "score": 0.1, "model_version": broken.version}]
    broken.studio.call("POST", f"/api/projects/{broken.number}/import/predictions", json=body)
    broken.connection(title="mine")
    broken.project(model_version=broken.version)


@contextmanager
def foreign(version: str) -> Iterator[str]:
    """A backend of another make: its address."""

    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps({"status": "UP", "model_version": version}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def second_connection(broken: Broken) -> None:
    """Ours is not the first."""
    broken.studio.call("DELETE", f"/api/ml/{broken.backend['id']}")
    with foreign("other") as url:
        body = {"project": broken.number, "url": url, "title": "other"}
        broken.studio.call("POST", "/api/ml/", json=body)
    ours = {"project": broken.number, "url": broken.stack.backend_url, "title": broken.version}
    broken.studio.call("POST", "/api/ml/", json=ours)


def gone(broken: Broken) -> None:
    """The backend was moved or has ended."""
    broken.studio.call("DELETE", f"/api/ml/{broken.backend['id']}")
    with foreign(broken.version) as url:
        body = {"project": broken.number, "url": url, "title": broken.version}
        broken.studio.call("POST", "/api/ml/", json=body)


def outsider(broken: Broken) -> None:
    """An image on a server that nobody has allowed."""
    broken.studio.import_tasks(broken.number, [{"image": f"http://127.0.0.1:{free_port()}/photo.jpg"}])


def local_file(broken: Broken) -> None:
    """A local file that no storage of the project covers."""
    broken.studio.import_tasks(broken.number, [{"image": "/data/local-files/?d=elsewhere/photo.jpg"}])


def password(broken: Broken) -> None:
    broken.environment["BOXLIFT_BASIC_AUTH"] = "studio:pass"


def secret(broken: Broken) -> None:
    broken.environment["BOXLIFT_WEBHOOK_SECRET"] = "hush"


def patient(broken: Broken) -> None:
    broken.environment["BOXLIFT_ANSWER_SECONDS"] = "120"


TRAPS: list[tuple[Callable[[Broken], object], str, str, str]] = [
    (other_version, "warning", "scores, sorting and sampling go by another", "boxlift connect"),
    (lambda b: b.connection(title="mine"), "warning", "go by mine", "boxlift connect"),
    (other_title, "warning", "its title is 'mine'", "boxlift connect"),
    (gone, "failed", "Label Studio does not reach", "a container's localhost"),
    (lambda b: b.project(show_collab_predictions=False), "warning", "not shown to people", "prelabel"),
    (lambda b: b.connection(extra_params={"threshold": 0.3}), "warning", "extra params are not used", "model_max"),
    (no_webhook, "warning", "no webhook to", "boxlift connect"),
    (idle_webhook, "warning", "a webhook to", "boxlift connect"),
    (second_connection, "warning", "only its first connection", "delete connection"),
    (lambda b: b.project(label_config=SMART), "warning", "smart tools", "boxlift connect"),
    (
        lambda b: b.project(label_config=label_config().replace("RectangleLabels", "PolygonLabels")),
        "failed",
        "no RectangleLabels tag",
        "Labeling Interface",
    ),
    (
        lambda b: b.project(label_config=label_config().replace('value="Hammer"', 'value="Hammerlet"')),
        "ok",
        "connected",
        "",
    ),
    (
        lambda b: b.project(label_config=SMART.replace("</Rect", '<Label value="Snark"/></Rect')),
        "warning",
        'no class of the model reaches "Snark"',
        "Labeling Interface",
    ),
    (outsider, "failed", "an image of task", "BOXLIFT_IMAGE_HOSTS"),
    (local_file, "failed", "an image of task", "LOCAL_FILES_SERVING_ENABLED"),
    (password, "failed", "disagree on whether there is a password", "boxlift connect"),
    (password, "warning", "events are refused", "BOXLIFT_WEBHOOK_SECRET"),
    (secret, "warning", "Start training", "BOXLIFT_BASIC_AUTH"),
    (secret, "failed", "does not carry BOXLIFT_WEBHOOK_SECRET", "boxlift connect"),
    (patient, "warning", "Label Studio waits 100 s", "60 or less"),
    (
        lambda b: b.studio.call("DELETE", f"/api/ml/{b.backend['id']}"),
        "failed",
        "no connection to a Boxlift backend",
        "boxlift connect",
    ),
]
"""How a project is broken → what state, words and advice its check must have."""


@pytest.mark.parametrize(("trap", "state", "words", "advice"), TRAPS)
def test_a_trap_is_found(
    broken: Broken, trap: Callable[[Broken], object], state: str, words: str, advice: str
) -> None:
    assert [check["state"] for check in broken.checks()] == ["ok", "ok"]
    trap(broken)
    found = [check for check in broken.checks() if words in check["text"]]
    assert found, broken.checks()
    assert found[0]["state"] == state
    assert advice in found[0]["advice"]


class Strict(StudioServer):
    """A Label Studio as it comes: it refuses private and loopback addresses, and legacy tokens."""

    def _environment(self) -> dict[str, str]:
        loose = ("LABEL_STUDIO_ML_BLOCK_LOCAL_IP", "LABEL_STUDIO_SSRF_PROTECTION_ENABLED")
        kept = {name: value for name, value in super()._environment().items() if name not in loose}
        return kept | {"LABEL_STUDIO_USER_TOKEN": LEGACY}


LEGACY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    with Strict(tmp_path_factory.mktemp("strict")) as server:
        server.wait()
        yield server


def test_a_server_that_refuses_private_addresses(strict: Strict, stack: Stack) -> None:
    with StudioApi(strict.url, strict.login.token) as api:
        number = api.create_project("strict", label_config())
    environment = stack.environment() | {"LABEL_STUDIO_URL": strict.url, "LABEL_STUDIO_API_KEY": strict.login.token}
    code, checks, _ = doctor(environment | {"BOXLIFT_NETWORK": NETWORK}, number)
    assert code == 1
    assert [check["state"] for check in checks["address"]] == ["failed", "failed"]
    for check, what in zip(checks["address"], ("a connection to", "webhooks to"), strict=True):
        assert what in check["text"]
        assert "ML_BLOCK_LOCAL_IP=false" in check["advice"]
        assert "SSRF_PROTECTION_ENABLED=false" in check["advice"]
    # Connecting fails with the same advice, and leaves nothing behind.
    command = [sys.executable, "-m", "backend.cli", "connect", "--project", str(number), "--url", stack.backend_url]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ML_BLOCK_LOCAL_IP=false" in done.stderr


class Half(StudioServer):
    """A Label Studio where only half of it was opened: connections are saved, their webhooks are not."""

    def _environment(self) -> dict[str, str]:
        kept = super()._environment()
        del kept["LABEL_STUDIO_SSRF_PROTECTION_ENABLED"]
        return kept


def test_a_server_that_refuses_only_webhooks(stack: Stack, tmp_path: Path) -> None:
    with Half(tmp_path / "half") as server:
        server.wait()
        with StudioApi(server.url, server.login.token) as api:
            number = api.create_project("half", label_config())
            environment = stack.environment() | {
                "LABEL_STUDIO_URL": server.url,
                "LABEL_STUDIO_API_KEY": server.login.token,
                "BOXLIFT_NETWORK": NETWORK,
            }
            command = ["connect", "--project", str(number), "--url", stack.backend_url, "--json"]
            # It saves the connection, fails at its webhook, and answers as if all of it were refused.
            made = CliRunner().invoke(main, command, env=environment)
            assert (made.exit_code, "SSRF_PROTECTION_ENABLED=false" in made.output) == (1, True)
            made = CliRunner().invoke(main, command, env=environment)
            assert made.exit_code == 0, made.output
            [warning] = json.loads(made.stdout)["warnings"]
            assert "SSRF_PROTECTION_ENABLED=false" in warning
            [connection] = api.call("GET", "/api/ml/", params={"project": number})
            assert connection["state"] == "CO"
            before = _everything(api, number)
            _, checks, _ = doctor(environment, number)
            [refused] = checks["address"]
            assert (refused["state"], "webhooks to" in refused["text"]) == ("failed", True)
            assert "SSRF_PROTECTION_ENABLED=false" in refused["advice"]
            assert any("no webhook to" in check["text"] for check in checks[f"project {number}"])
            assert _everything(api, number) == before, "the doctor has changed something"


def _everything(api: StudioApi, number: int) -> list[Any]:
    """A project, its connections and its webhooks; without the moment when Label Studio last tried a connection."""
    found = [
        api.call("GET", f"/api/projects/{number}/"),
        api.call("GET", "/api/ml/", params={"project": number}),
        api.call("GET", "/api/webhooks/", params={"project": number}),
        sorted(api.projects()),
    ]
    for connection in found[1]:
        connection.pop("updated_at", None)
    return found


def test_legacy_tokens_are_refused_with_the_way_out(strict: Strict, stack: Stack) -> None:
    environment = stack.environment() | {"LABEL_STUDIO_URL": strict.url, "LABEL_STUDIO_API_KEY": LEGACY}
    code, checks, output = doctor(environment | {"BOXLIFT_NETWORK": NETWORK}, 1)
    assert code == 1
    assert "legacy token is refused" in checks["token"][0]["text"]
    assert "personal access token" in checks["token"][0]["advice"]
    assert LEGACY not in output


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://boxlift:9090", "does not know this host"), ("http://no-such-host.invalid:9090", "does not know")],
)
def test_hosts_that_label_studio_cannot_find(stack: Stack, studio: StudioApi, url: str, words: str) -> None:
    number = studio.create_project("dotless", label_config())
    arguments = ["doctor", "--json", "--project", str(number), "--url", url]
    done = CliRunner().invoke(main, arguments, env=stack.environment() | {"BOXLIFT_NETWORK": NETWORK})
    found = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "address"]
    assert any(words in check["text"] for check in found)
    assert any("dot" in check["text"] for check in found) == ("." not in url)


def test_a_token_that_soon_ends(stack: Stack) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 86400}).encode()).decode().rstrip("=")
    assert ends(f"e30.{claims}.x") == pytest.approx(time.time() + 86400, abs=60)
    assert ends(LEGACY) == float("inf")
    assert ends(stack.studio.login.token) > time.time() + 86400
