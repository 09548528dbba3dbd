"""A real Label Studio, started from an environment of its own and configured without a click.

Its pins collide with ours, so it lives in `.venv-label-studio` (`make setup` makes it). It listens on the
loopback address only, and sends nothing anywhere: telemetry, error reports and version checks are off.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import httpx

from backend.demo.processes import LOOPBACK, Child, ProcessError, base_environment, free_port
from worker.errors import StudioError

ENVIRONMENT = ".venv-label-studio"
EMPTY_DATABASE = "empty.sqlite3"
"""Inside that environment: a database with all migrations, which saves a start most of its time."""
START_SECONDS = 300.0
"""Patience for a start that has to migrate first: half a minute on two cores that have nothing else to do."""


def find_studio(environ: Mapping[str, str] = os.environ) -> Path:
    """Label Studio's command. Raises StudioError that says how to get it."""
    named = environ.get("BOXLIFT_STUDIO_COMMAND", "")
    places = (Path.cwd(), Path(__file__).parents[2])
    candidates = [Path(named)] if named else [place / ENVIRONMENT / "bin/label-studio" for place in places]
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate.absolute()
    raise StudioError(
        f"no Label Studio at {' or '.join(str(path) for path in candidates)}: run `make setup`, "
        "or set BOXLIFT_STUDIO_COMMAND to the label-studio command of its environment"
    )


@dataclass(frozen=True)
class Login:
    """The first user, and a personal access token once there is one; `repr` shows no secrets."""

    email: str
    password: str
    token: str = ""
    secret: str = ""
    """Label Studio's key, which signs tokens. The one that it would make itself has characters that its own
    settings file does not keep, every now and then, and then no token survives a restart."""

    def __repr__(self) -> str:
        return f"Login(email={self.email!r})"

    @classmethod
    def kept_in(cls, file: Path) -> Login:
        """What an earlier start stored in `file`, else a new user with a random password."""
        if file.exists():
            return cls(**json.loads(file.read_text()))
        login = cls("demo@boxlift.local", secrets.token_urlsafe(9), secret=secrets.token_hex(32))
        login.keep(file)
        return login

    def keep(self, file: Path) -> None:
        """Store it where only this user can read it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self)))


class StudioServer:
    """Label Studio on a free port; state (database, uploads, login) is kept in `folder`."""

    def __init__(self, folder: Path, *, port: int = 0, local_files: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.port = free_port(port)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.local_files = local_files
        self._login_file = self.folder / "login.json"
        self.login = Login.kept_in(self._login_file)
        self.process: Child | None = None

    def start(self) -> Self:
        """Start the process; `wait` says when it answers. Raises StudioError where it is not installed."""
        program = find_studio()
        self._prepare_database(program.parents[1] / EMPTY_DATABASE)
        command = [str(program), "start", "--no-browser", "--internal-host", LOOPBACK]
        self.process = Child(
            "Label Studio",
            [*command, "--port", str(self.port)],
            log=self.folder / "label-studio.log",
            env=self._environment(),
            cwd=self.folder,
        )
        return self

    def wait(self, seconds: float = START_SECONDS) -> Self:
        """Wait until it answers, then see to a token. Raises ProcessError with the log's end."""
        if self.process is None:
            raise ProcessError("Label Studio was not started")
        self.process.wait_until(self._healthy, seconds=seconds, pause=0.25)
        self.login = self._with_token(self.login)
        self.login.keep(self._login_file)
        return self

    def stop(self) -> None:
        """End it and everything it started."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        settings = {
            "BASE_DATA_DIR": str(self.folder / "data"),
            "HOST": self.url,
            "USERNAME": self.login.email,
            "PASSWORD": self.login.password,
            # Both are needed for a backend on a loopback address: with the first alone it is connected,
            # but its webhook is not.
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        }
        if self.local_files is not None:
            settings["LOCAL_FILES_SERVING_ENABLED"] = "true"
            settings["LOCAL_FILES_DOCUMENT_ROOT"] = str(self.local_files.absolute())
        environment = base_environment() | {f"LABEL_STUDIO_{name}": value for name, value in settings.items()}
        return environment | ({"SECRET_KEY": self.login.secret} if self.login.secret else {})

    def _prepare_database(self, empty: Path) -> None:
        """Begin with a database whose migrations are done, where there is none yet."""
        own = self.folder / "data/label_studio.sqlite3"
        if empty.is_file() and not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(empty, own)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _with_token(self, login: Login) -> Login:
        """The login with a personal access token that works; the one it has, if it still does."""
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            if login.token and client.post("/api/token/refresh/", json={"refresh": login.token}).is_success:
                return login
            sign_in(client, login)
            answer = client.post("/api/token/", json={}, headers=_csrf(client))
        if answer.status_code != 201:
            raise StudioError(f"Label Studio gave no access token (status {answer.status_code})")
        return replace(login, token=answer.json()["token"])


def sign_in(client: httpx.Client, login: Login) -> None:
    """Open a browser-like session in `client`. Raises StudioError where the login is refused."""
    client.get("/user/login/")
    form = {"email": login.email, "password": login.password}
    answer = client.post("/user/login/", data=form, headers=_csrf(client))
    if answer.status_code != 302:
        raise StudioError(f"Label Studio refused the login of {login.email} (status {answer.status_code})")


def _csrf(client: httpx.Client) -> dict[str, str]:
    return {"X-CSRFToken": client.cookies.get("csrftoken") or "", "Referer": str(client.base_url)}
