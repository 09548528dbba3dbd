"""Is everything there that the settings name, and if not, what to do: Redis, workers, weights and packages."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from backend.settings import Settings
from worker.errors import BoxliftError

OK, WARN, FAIL = "ok", "warning", "failed"
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
    """What is installed, and what must not be beside it."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    yield Check("versions", OK, f"Python {platform.python_version()}, {', '.join(found)}")
    if find_spec("label_studio"):
        text = "Label Studio itself is installed beside Boxlift: their requirements contradict each other"
        yield Check("versions", WARN, text, "give each an environment of its own")


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
            yield Check("redis", FAIL, f"it cannot be reached: {short(error)}", advice)
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
        yield Check("workers", FAIL, f"the announced model cannot be read: {short(error)}", "restart the workers")
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


def short(error: BaseException) -> str:
    """First line of an error's words, without the password of an address."""
    words = str(error).strip().splitlines()
    return words[0] if words else type(error).__name__
