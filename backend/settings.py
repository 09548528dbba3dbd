"""Settings: one frozen value, read from the environment once and passed in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from worker.errors import SettingsError


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
        "value of the X-Boxlift-Secret header that webhooks must carry",
        secret=True,
    )
    network: str = _setting("BOXLIFT_NETWORK", "vgg16", "classifier that workers run")
    weights: str = _setting("BOXLIFT_WEIGHTS", "", "local state dict instead of the published weights")
    cache_dir: Path = _setting("BOXLIFT_CACHE_DIR", _cache_dir, "folder for downloaded weights")
    device: str = _setting("BOXLIFT_DEVICE", "auto", "cpu, cuda:0, … or auto")
    precision: str = _setting(
        "BOXLIFT_PRECISION",
        "auto",
        "number format of the maps: auto (bfloat16 where the device is fast at it), float32 or bfloat16",
        choices=("auto", "float32", "bfloat16"),
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
        """Read the environment. Raises SettingsError that names the variable and what it may be."""
        values: dict[str, Any] = {}
        for item in fields(cls):
            env = item.metadata["env"]
            text = environ.get(env, "").strip()
            if text:
                values[item.name] = _parse(env, text, str(item.type), item.metadata["choices"])
        return cls(**values)


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
