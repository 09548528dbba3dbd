"""Is everything there that the settings name, and if not, what to do: the checks of `boxlift doctor`."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from backend.settings import Settings
from worker.errors import BoxliftError

OK, WARN, FAIL = "ok", "warning", "failed"
RENEWAL = "create a personal access token in Label Studio (Account & Settings) and set LABEL_STUDIO_API_KEY to it"
OLDEST_REDIS = (6, 2)
"""LMOVE, which jobs are taken with, came with it."""
PACKAGES = (
    "boxlift",
    "rq",
    "redis",
    "label-studio-sdk",
    "label-studio-ml",
    "flask",
    "torch",
    "torchvision",
    "captum",
)


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` says what to do; only where something is wrong."""

    name: str
    state: str
    text: str
    advice: str = ""


def check_versions(settings: Settings) -> Iterator[Check]:
    """What is installed; never fails."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    yield Check("versions", OK, f"Python {platform.python_version()}, {', '.join(found)}")


def check_redis(settings: Settings) -> Iterator[Check]:
    """Redis answers, is new enough, keeps what it is given; workers have announced a model."""
    import redis

    advice = "start it, set REDIS_URL to one that runs, or try `boxlift demo`, which brings its own"
    try:
        client = redis.Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=5, retry=None)
    except ValueError:  # its words may hold parts of the password
        yield Check("redis", FAIL, "REDIS_URL cannot be read", "write redis://HOST:PORT/0")
        return
    with client:
        try:
            info = client.info("server") | client.info("persistence") | client.info("memory")
        except redis.AuthenticationError:
            yield Check("redis", FAIL, "it refuses the password", "put it into REDIS_URL: redis://:PASSWORD@HOST/0")
            return
        except redis.RedisError as error:
            yield Check("redis", FAIL, f"it cannot be reached: {_short(error)}", advice)
            return
        version = str(info["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
            yield Check("redis", FAIL, f"version {version} is too old", "use 6.2 or newer")
            return
        yield Check("redis", OK, f"version {version} answers")
        if not info.get("aof_enabled"):
            yield Check(
                "redis",
                WARN,
                "no append-only file: queued tasks are lost if it crashes",
                "set `appendonly yes` in its configuration",
            )
        if str(info.get("maxmemory_policy", "noeviction")) != "noeviction":
            text = f"its maxmemory-policy is {info['maxmemory_policy']}: it may throw queued tasks away"
            yield Check("redis", WARN, text, "set `maxmemory-policy noeviction`")
        yield from _check_workers(client)


def _check_workers(client: object) -> Iterator[Check]:
    import redis
    from rq import Worker
    from rq.serializers import JSONSerializer

    from worker.contract import BULK, INTERACTIVE, MODEL_KEY, Model

    assert isinstance(client, redis.Redis)  # noqa: S101 - narrows the type
    text = client.get(MODEL_KEY)
    running = [
        worker
        for worker in Worker.all(connection=client, serializer=JSONSerializer)
        if {INTERACTIVE, BULK} & set(worker.queue_names())
    ]
    waiting = sum(int(client.llen(f"rq:queue:{name}")) for name in (INTERACTIVE, BULK))
    if not isinstance(text, bytes):
        yield Check(
            "workers", FAIL, "no worker has announced a model: nothing can be predicted", "run `boxlift worker`"
        )
        return
    try:
        model = Model.from_dict(json.loads(text))
    except (BoxliftError, ValueError) as error:
        yield Check("workers", FAIL, f"the announced model cannot be read: {_short(error)}", "restart the workers")
        return
    if not running:
        text = f"none is running; {waiting} tasks wait. The last ran {model.version}"
        yield Check(
            "workers",
            FAIL,
            text,
            "run `boxlift worker`",
        )
        return
    yield Check("workers", OK, f"{len(running)} running {model.version}; {waiting} tasks wait")


def check_weights(settings: Settings) -> Iterator[Check]:
    """The network's weights are on this machine, and what it computes on. Only where the worker is installed."""
    if not find_spec("torch"):
        yield Check("weights", OK, "no torch here: this machine runs the backend alone, workers run elsewhere")
        return
    from worker.attribution.precision import describe_precision, parse_precision
    from worker.networks import find_entry, resolve_device

    try:
        entry = find_entry(settings.network)
    except BoxliftError as error:
        yield Check("weights", FAIL, str(error), "set BOXLIFT_NETWORK to one of these")
        return
    if settings.weights:
        file = Path(settings.weights).expanduser()
        if file.is_file():
            yield Check("weights", OK, f"{settings.network} from {file}")
        else:
            advice = "set BOXLIFT_WEIGHTS to a state dict, or unset it"
            yield Check("weights", FAIL, f"there is no file {file}", advice)
    else:
        found = entry.source.find(settings.cache_dir)
        if found:
            yield Check("weights", OK, f"{settings.network} in {found}")
        else:
            url = getattr(entry.source, "url", "")
            advice = (
                f"a worker downloads them when it starts; offline, put {Path(url).name} into {settings.cache_dir}"
            )
            yield Check("weights", WARN, f"{settings.network}'s weights are not on this machine", advice)
    try:
        device = resolve_device(settings.device)
        yield Check("device", OK, f"{device}, {describe_precision(device, parse_precision(settings.precision))}")
    except BoxliftError as error:
        yield Check("device", FAIL, str(error), "set BOXLIFT_DEVICE to auto, cpu or cuda:0")


def check_studio(settings: Settings) -> Iterator[Check]:
    """Label Studio answers, and takes our token."""
    import httpx

    if not settings.studio_url:
        advice = "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY to read uploads and to push late predictions"
        yield Check("label studio", FAIL, "no address is set", advice)
        return
    url = settings.studio_url.rstrip("/")
    with httpx.Client(timeout=10, follow_redirects=False) as client:
        try:
            answer = client.get(f"{url}/api/version")
            version = answer.json().get("release", "unknown") if answer.is_success else "unknown"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            advice = "set LABEL_STUDIO_URL to an address that works from here (in a container, not localhost)"
            yield Check("label studio", FAIL, f"{url} does not answer as one: {_short(error)}", advice)
            return
        if not answer.is_success:
            advice = "set LABEL_STUDIO_URL to where Label Studio runs, with its path if it has one"
            yield Check("label studio", FAIL, f"{url}/api/version answered {answer.status_code}", advice)
            return
        yield Check("label studio", OK, f"version {version} at {url}")
        yield _check_token(client, url, settings.studio_token)


def _check_token(client: object, url: str, token: str) -> Check:
    import httpx

    assert isinstance(client, httpx.Client)  # noqa: S101 - narrows the type
    if not token:
        return Check("token", FAIL, "none is set: uploads cannot be read, late answers not be pushed", RENEWAL)
    personal = token.count(".") == 2  # a JSON web token
    kind = "personal access token" if personal else "legacy token"
    try:
        if personal:
            answer = client.post(f"{url}/api/token/refresh/", json={"refresh": token})
            if not answer.is_success:
                return Check(
                    "token", FAIL, f"the {kind} is not valid any more (status {answer.status_code})", RENEWAL
                )
            header = f"Bearer {answer.json()['access']}"
        else:
            header = f"Token {token}"
        answer = client.get(f"{url}/api/current-user/whoami", headers={"Authorization": header})
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return Check("token", FAIL, f"it could not be tried: {_short(error)}", "try again")
    if answer.is_success:
        return Check("token", OK, f"{kind} of {answer.json().get('email', 'a user')}")
    if personal:
        return Check("token", FAIL, f"the {kind} is refused (status {answer.status_code})", RENEWAL)
    advice = f"{RENEWAL}; or allow legacy tokens in the organisation's settings"
    return Check(
        "token", FAIL, f"the {kind} is refused (status {answer.status_code}): they are off by default", advice
    )


def check_backend(settings: Settings) -> Iterator[Check]:
    """The backend answers where the settings say that it listens."""
    import httpx

    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared, not bound
    url = f"http://{host}:{settings.port}"
    try:
        answer = httpx.get(f"{url}/health", timeout=5, trust_env=False)
        if answer.is_success and answer.json().get("status") == "UP":
            yield Check("backend", OK, f"answers at {url}")
            return
        text = f"{url}/health answered {answer.status_code}"
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        text = f"{url} does not answer: {_short(error)}"
    yield Check("backend", WARN, text, "run `boxlift serve` (nothing to do if it runs on another machine)")


CHECKS: tuple[Callable[[Settings], Iterator[Check]], ...] = (
    check_versions,
    check_redis,
    check_weights,
    check_studio,
    check_backend,
)


def _short(error: BaseException) -> str:
    """First line of an error's words, without the password of an address."""
    words = str(error).strip().splitlines()
    return words[0] if words else type(error).__name__
