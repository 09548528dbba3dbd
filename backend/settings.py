"""Settings: one frozen value, read from the environment once and passed in."""

from __future__ import annotations

import difflib
import logging
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from worker.choices import ENGINES, PRECISIONS
from worker.errors import SettingsError

log = logging.getLogger("boxlift.settings")

_OTHERS = {"BOXLIFT_STUDIO_COMMAND", "BOXLIFT_GPUS", "BOXLIFT_TAG", "BOXLIFT_WORKER_MEMORY"}
_OTHERS |= {"BOXLIFT_SHARED", "BOXLIFT_COMPOSE", "BOXLIFT_TEST_EXAMPLES", "BOXLIFT_LONG_TESTS"}
"""Variables of the demo, of docker/compose.yml and of the tests."""


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "boxlift"


def _setting(env: str, default: object, help: str, *, secret: bool = False, choices: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    meta = {"env": env, "help": help, "secret": secret, "choices": choices}
    if callable(default):
        return field(default_factory=default, metadata=meta, repr=not secret)
    return field(default=default, metadata=meta, repr=not secret)


@dataclass(frozen=True)
class Settings:
    """Every setting of Boxlift; `metadata["env"]` names its environment variable (see README)."""

    redis_url: str = _setting("REDIS_URL", "redis://127.0.0.1:6379/0", "Redis that holds the queue", secret=True)
    redis_password: str = _setting(
        "REDIS_PASSWORD", "", "Redis's password, where REDIS_URL holds none", secret=True
    )
    studio_url: str = _setting("LABEL_STUDIO_URL", "", "Label Studio's address, e.g. http://localhost:8080")
    studio_token: str = _setting(
        "LABEL_STUDIO_API_KEY", "", "access token for Label Studio (personal or legacy)", secret=True
    )
    host: str = _setting("BOXLIFT_HOST", "127.0.0.1", "address that the backend binds to")
    port: int = _setting("BOXLIFT_PORT", 9090, "port of the backend")
    threads: int = _setting("BOXLIFT_THREADS", 16, "request threads of the backend")
    basic_auth: str = _setting("BOXLIFT_BASIC_AUTH", "", "user:password that requests must carry", secret=True)
    webhook_secret: str = _setting(
        "BOXLIFT_WEBHOOK_SECRET",
        "",
        "value of the X-Boxlift-Secret header that webhooks must carry; *Start training* is refused then, unless "
        "BOXLIFT_BASIC_AUTH is set, too",
        secret=True,
    )
    max_request_bytes: int = _setting(
        "BOXLIFT_MAX_REQUEST_BYTES", 256 << 20, "largest request; 1,200 tasks that carry their pictures fit"
    )
    network: str = _setting("BOXLIFT_NETWORK", "vgg16", "classifier that workers run")
    weights: str = _setting("BOXLIFT_WEIGHTS", "", "local state dict instead of the published weights")
    classes: str = _setting("BOXLIFT_CLASSES", "", "file of class names for weights of your own, one a line")
    cache_dir: Path = _setting("BOXLIFT_CACHE_DIR", _cache_dir, "folder for downloaded weights")
    device: str = _setting("BOXLIFT_DEVICE", "auto", "cpu, cuda:0, … or auto")
    precision: str = _setting(
        "BOXLIFT_PRECISION",
        "auto",
        "number format of the maps: auto (bfloat16 where the device is fast at it), float32 or bfloat16",
        choices=PRECISIONS,
    )
    engine: str = _setting(
        "BOXLIFT_ENGINE",
        "boxlift",
        "code that computes the maps: boxlift, or captum (the same boxes, slower)",
        choices=ENGINES,
    )
    answer_seconds: float = _setting(
        "BOXLIFT_ANSWER_SECONDS", 8.0, "how long /predict waits for a few tasks before it answers []"
    )
    answer_tasks: int = _setting("BOXLIFT_ANSWER_TASKS", 4, "largest number of tasks that /predict waits for")
    job_timeout: int = _setting("BOXLIFT_JOB_TIMEOUT", 120, "seconds one task may take in a worker")
    job_retries: int = _setting("BOXLIFT_JOB_RETRIES", 2, "further tries of a job that failed")
    result_ttl: int = _setting("BOXLIFT_RESULT_TTL", 86400, "seconds that results stay in Redis")
    unmatched: str = _setting(
        "BOXLIFT_UNMATCHED",
        "skip",
        "classes without a label: skip, or only-label",
        choices=("skip", "only-label"),
    )
    write: str = _setting(
        "BOXLIFT_WRITE",
        "predictions",
        "what Label Studio gets: predictions, or drafts of the token's user beside them",
        choices=("predictions", "drafts"),
    )
    preannotate: str = _setting(
        "BOXLIFT_PREANNOTATE",
        "no",
        "whether new tasks are predicted as soon as Label Studio tells of them",
        choices=("no", "yes"),
    )
    tune_every: int = _setting(
        "BOXLIFT_TUNE_EVERY", 0, "a project is tuned after this many new or changed annotations; 0 for never"
    )
    tune_repredict: str = _setting(
        "BOXLIFT_TUNE_REPREDICT",
        "yes",
        "whether *Start training* and `BOXLIFT_TUNE_EVERY` also predict again what nobody has annotated",
        choices=("no", "yes"),
    )
    max_image_bytes: int = _setting("BOXLIFT_MAX_IMAGE_BYTES", 64 << 20, "largest image file, in bytes")
    max_image_pixels: int = _setting("BOXLIFT_MAX_IMAGE_PIXELS", 120_000_000, "largest image, in pixels")
    fetch_timeout: float = _setting("BOXLIFT_FETCH_TIMEOUT", 30.0, "seconds to fetch one image")
    image_roots: tuple[Path, ...] = _setting(
        "BOXLIFT_IMAGE_ROOTS",
        (),
        "folders that local image paths may lie in, separated by the path separator",
    )
    image_hosts: tuple[str, ...] = _setting(
        "BOXLIFT_IMAGE_HOSTS",
        (),
        "further hosts that images may come from, separated by commas; * for any public host",
    )
    queue_limit: int = _setting(
        "BOXLIFT_QUEUE_LIMIT", 100_000, "most tasks that may wait; above it /predict answers 503"
    )
    log_format: str = _setting("BOXLIFT_LOG_FORMAT", "text", "text or json", choices=("text", "json"))
    log_level: str = _setting(
        "BOXLIFT_LOG_LEVEL",
        "INFO",
        "DEBUG, INFO, WARNING or ERROR",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment; secrets also from the files that `<NAME>_FILE` names, as containers get them.

        Variables that look like settings and are none are warned of. Raises SettingsError that names the variable
        and what it may be.
        """
        for name, meant in _unknown(environ).items():
            hint = f", perhaps {meant}?" if meant else ": see the table of settings in README.md"
            log.warning("%s is set, but there is no such setting%s", name, hint)
        values: dict[str, Any] = {}
        for item in fields(cls):
            env = item.metadata["env"]
            text = environ.get(env, "").strip()
            if item.metadata["secret"]:
                text = _from_file(env, text, environ.get(f"{env}_FILE", "").strip())
            if text:
                values[item.name] = _parse(env, text, str(item.type), item.metadata["choices"])
        if "redis_password" in values:
            url = values.get("redis_url", cls.redis_url)
            values["redis_url"] = _with_password(url, values["redis_password"])
        return cls(**values)

    def secrets(self) -> tuple[str, ...]:
        """What must never be shown: the secrets, and the passwords inside them."""
        found = {self.studio_token, self.webhook_secret, self.redis_password, self.basic_auth}
        found |= {self.basic_auth.partition(":")[2], b64encode(self.basic_auth.encode()).decode()}
        try:
            written = urlsplit(self.redis_url).password or ""
        except ValueError:  # an address that cannot be read: all of it
            written = self.redis_url
        found |= {written, unquote(written)}
        return tuple(secret for secret in found if secret)


def _unknown(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like Boxlift's and are none, misspelt or of another version → the most alike, or ""."""
    known = {item.metadata["env"] for item in fields(Settings)}
    files = {f"{item.metadata['env']}_FILE" for item in fields(Settings) if item.metadata["secret"]}
    strangers = {name for name, text in environ.items() if name.startswith("BOXLIFT_") and text.strip()}
    strangers -= known | files | _OTHERS
    return {
        name: next(iter(difflib.get_close_matches(name, sorted(known), 1, 0.8)), "") for name in sorted(strangers)
    }


def _from_file(env: str, text: str, file: str) -> str:
    """A secret out of its variable or out of the file that another one names."""
    if not file:
        return text
    if text:
        raise SettingsError(f"{env} and {env}_FILE are both set: unset one of them")
    try:
        found = Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{env}_FILE is {file!r}, which cannot be read ({reason}): check it") from None
    if not found:
        raise SettingsError(f"{env}_FILE is {file!r}, which is empty: put the secret into it")
    return found


def _with_password(url: str, password: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.password
    except ValueError:
        raise SettingsError("REDIS_URL cannot be read: write redis://HOST:PORT/0") from None
    if known:
        raise SettingsError("REDIS_URL holds a password and REDIS_PASSWORD is set as well: leave one of them out")
    user, at, host = parts.netloc.rpartition("@")
    login = f"{user.rstrip(':') if at else ''}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{host}").geturl()


def _parse(env: str, text: str, kind: str, choices: tuple[str, ...]) -> object:
    if choices and text not in choices:
        raise SettingsError(f"{env} is {text!r}: it must be one of {', '.join(choices)}")
    number: float
    try:
        match kind:
            case "int":
                number = int(text)
            case "float":
                number = float(text)
            case "Path":
                return Path(text).expanduser()
            case "tuple[Path, ...]":
                return tuple(Path(part).expanduser() for part in text.split(os.pathsep) if part)
            case "tuple[str, ...]":
                return tuple(part.strip() for part in text.split(",") if part.strip())
            case _:
                return text
    except ValueError:
        raise SettingsError(f"{env} is {text!r}: it must be a number") from None
    if not number >= 0 or number == float("inf"):
        raise SettingsError(f"{env} is {text!r}: it must be zero or more")
    return number
