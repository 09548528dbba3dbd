"""What a job carries and what comes back: frozen values that turn into JSON and back.

The backend and the workers share this module, `worker.choices` and `worker.errors`, and nothing else of each other.
Redis holds only what is defined here, under keys that start with `PREFIX` (the number is the schema).

    Plan ──(stored once per project configuration, named by its digest)
      ▲
    Request ──RQ job──► worker ──► Result {images: (ImageResult {detections: (Detection, …)}, …)}

Boxes are half-open (x0, y0, x1, y1) in pixels of the upright image (EXIF orientation applied).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from worker.errors import ContractError

SCHEMA = 1
PREFIX = f"boxlift:{SCHEMA}:"
_QUEUES = "" if SCHEMA == 1 else f"-{SCHEMA}"
"""RQ knows queues by their names alone: each schema has its own, or workers of one would take the other's jobs."""
INTERACTIVE = f"boxlift-interactive{_QUEUES}"
"""Queue of tasks that somebody waits for: always served first."""
BULK = f"boxlift-bulk{_QUEUES}"
"""Queue of everything else."""
LOCALIZE = "worker.jobs.localize"
"""The one function that RQ jobs name; its only argument is `Request.to_dict()`."""

MODEL_KEY = PREFIX + "model"
"""The `Model` of the worker that started last, as JSON; also under `model_key(version)` for each version."""
OUTBOXES_KEY = PREFIX + "outboxes"
"""Set of the projects that have something in their outbox."""
RESULTS_KEPT = 30 * 86400
"""Seconds that an outbox outlives its last result where Label Studio takes none: as long as plans, without which no
result can be read."""
STATS_KEY = PREFIX + "stats"
"""Hash of counters that workers add to: see worker.stats."""
FAILURES_KEY = PREFIX + "failures"
"""List, newest first, of what went wrong with a task for good: {"at", "project", "task", "job", "reason"}."""
FAILURES_KEPT = 1000
FAILING_KEY = PREFIX + "failing"
"""Hash of "project:task" → its entry in `FAILURES_KEY`, which leaves the list when the task has been done after
all."""
CLAIMS_KEY = PREFIX + "claims"
"""Sorted set of "project:task:job" whose result somebody waits for, or answers with, scored by the time (Redis's)
until which it is left to them; whoever has answered takes it out. What is left then goes to the outbox."""
CLAIMED_KEY = PREFIX + "claimed"
"""Hash of the same names → `Result` as JSON."""
LATENCY_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds, in seconds, of the histograms in `STATS_KEY`."""
STARTING_KEY = PREFIX + "starting"
"""Hash of each worker process that is loading its network → Redis's time in seconds, a space, the network."""
WORKERS_KEY = PREFIX + "workers"
"""Hash of each live worker's name → what it last said about itself, as JSON."""

TUNING_WISHES_KEY = PREFIX + "tuning-wishes"
"""Hash of projects whose corrections are to be learned from → how, as JSON: see backend.tunings."""
TUNING_STATES_KEY = PREFIX + "tuning-states"
"""Hash of projects → what became of their last wish, as JSON."""
CORRECTED_KEY = PREFIX + "corrected"
"""Hash of projects → corrections since the last wish."""

CLOUD = ("s3", "gs", "azure-blob")
"""Schemes of the cloud storages that Label Studio reads."""

Box = tuple[float, float, float, float]
_IGNORED = "".join(map(chr, range(33)))


def model_key(version: str) -> str:
    """Key of the announced `Model` of one version."""
    return f"{MODEL_KEY}:{version}"


def plan_key(digest: str) -> str:
    """Key of a `Plan`, as JSON."""
    return f"{PREFIX}plan:{digest}"


def tuning_key(version: str) -> str:
    """Key of a `Tuning`, as JSON, by its version."""
    return f"{PREFIX}tuning:{version}"


def tuned_key(project: int | str) -> str:
    """Key of the version of the `Tuning` that is a project's own at present."""
    return f"{PREFIX}tuned:{project}"


def tuning_lock_key(project: int | str) -> str:
    """Key of the lock that whoever tunes a project holds."""
    return f"{PREFIX}tuning-lock:{project}"


def waiting_key(job_id: str) -> str:
    """Key of the set of those who wait for a job and will answer with its result themselves."""
    return f"{PREFIX}waiting:{job_id}"


def outbox_key(project: int | str) -> str:
    """Key of a project's hash of task id → `Result` as JSON, not yet in Label Studio."""
    return f"{PREFIX}outbox:{project}"


def sending_key(project: int | str) -> str:
    """Key of the part of a project's outbox that is just being sent."""
    return f"{PREFIX}sending:{project}"


def job_labels(job_id: str) -> dict[str, Any]:
    """What log lines about a job carry: `project` and `task`, out of its id, and `job` itself. 0 where the id is
    not one of ours."""
    numbers = [int(part) if part.isdecimal() else 0 for part in job_id.split("-")[1:3]]
    project, task = numbers if len(numbers) == 2 else (0, 0)
    return {"project": project, "task": task, "job": job_id}


def digest(value: object, length: int = 12) -> str:
    """Short stable name of a JSON-able value: hex SHA-256 of its canonical JSON, cut to `length`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def is_data_uri(address: str) -> bool:
    """Whether an address holds its image itself. As for browsers, spaces and control characters before it do not
    count."""
    return address.lstrip(_IGNORED)[:5].lower() == "data:"


def embedded_address(project: int, task: int, uri: str) -> str:
    """The address that a job carries for an image of a task on Label Studio.

    For a `data:` URI it is the task, and which URI of it: no image bytes belong into Redis. For a place in cloud
    storage (`s3:`, `gs:`, `azure-blob:`) it is where Label Studio, which has the keys, looks it up. Any other
    address is its own.
    """
    if is_data_uri(uri):
        return f"/api/tasks?project={project}&id={task}#{digest(uri, 32)}"
    if project > 0 and uri.partition("://")[0].lower() in CLOUD:
        place = base64.urlsafe_b64encode(uri.encode()).decode()
        return f"/tasks/{task}/resolve/?fileuri={place}"
    return uri


def strings(data: object) -> Iterator[str]:
    """All texts in a task's data, however deep."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping | list):
        for part in data.values() if isinstance(data, Mapping) else data:
            yield from strings(part)


class _Record:
    """Frozen dataclass ↔ JSON object; unknown or missing fields are a `ContractError`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The value back. Raises ContractError where fields are missing, unknown or of the wrong kind."""
        try:
            return cls(**cls._read(dict(data)))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ContractError(
                f"not a {cls.__name__} of schema {SCHEMA} ({error}): run the same Boxlift version everywhere"
            ) from None

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data


@dataclass(frozen=True, slots=True)
class ImageRef(_Record):
    """One image of a task: where it is, and which Image tag (and page) shows it."""

    url: str
    to_name: str = ""
    item_index: int | None = None
    """Page of a multi-page Image tag, from 0; None for a single image."""
    region: Box | None = None
    """The part to look at, (x0, y0, x1, y1) as fractions of the upright image; None for all of it."""

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        if data.get("region") is None:
            return data
        x0, y0, x1, y1 = (float(v) for v in data["region"])
        return data | {"region": (x0, y0, x1, y1)}


@dataclass(frozen=True, slots=True)
class Request(_Record):
    """One task to localize: the argument of an RQ job. Holds addresses, never image bytes or secrets."""

    project: int
    task: int
    model_version: str
    plan: str
    """Digest of the `Plan` under `PREFIX + "plan:" + digest`."""
    images: tuple[ImageRef, ...]
    push: bool = True
    """Whether a result that nobody waits for any more goes to Label Studio; not for a click that was given up."""

    @property
    def job_id(self) -> str:
        """Identity of the work: same project, task, images, plan and version give the same id."""
        work = [self.model_version, self.plan, [image.to_dict() for image in self.images], self.push]
        return f"bl{SCHEMA}-{self.project}-{self.task}-{digest(work)}"

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        images = tuple(ImageRef.from_dict(image) for image in data["images"])
        return data | {"images": images, "project": int(data["project"]), "task": int(data["task"])}


@dataclass(frozen=True, slots=True)
class Detection(_Record):
    """One box: the classifier's class, the score in [0, 1] that the box is right, and where it is."""

    label: str
    """The network's name of the class, not the project's label."""
    class_index: int
    score: float
    box: Box

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        x0, y0, x1, y1 = (float(v) for v in data["box"])
        return data | {"box": (x0, y0, x1, y1), "score": float(data["score"])}


@dataclass(frozen=True, slots=True)
class ImageResult(_Record):
    """What was found in one image, or why it could not be used."""

    image: ImageRef
    width: int = 0
    """Of the upright image, in pixels."""
    height: int = 0
    detections: tuple[Detection, ...] = ()
    error: str | None = None

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        found = tuple(Detection.from_dict(item) for item in data["detections"])
        return data | {"image": ImageRef.from_dict(data["image"]), "detections": found}


@dataclass(frozen=True, slots=True)
class Result(_Record):
    """The answer to a `Request`: one `ImageResult` for each of its images, in order."""

    project: int
    task: int
    model_version: str
    plan: str
    images: tuple[ImageResult, ...]

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"images": tuple(ImageResult.from_dict(image) for image in data["images"])}


@dataclass(frozen=True, slots=True)
class Plan(_Record):
    """What a project wants: its labelling config, and which of the network's classes compete.

    `classes` is None where every class competes (class-agnostic boxes under one label).
    `classes_of` overrides it for the Image tags it names: tags may have different labels.
    """

    label_config: str
    classes: tuple[int, ...] | None = None
    max_boxes: int = 1
    min_score: float = 0.0
    classes_of: dict[str, tuple[int, ...] | None] | None = None
    tuning: str | None = None
    """Version of the project's own `Tuning`; None for the workers' own parameters."""

    def classes_for(self, image: ImageRef) -> tuple[int, ...] | None:
        """The classes that compete in one image: those of its Image tag where it has its own."""
        return (self.classes_of or {}).get(image.to_name, self.classes)

    @property
    def digest(self) -> str:
        """Name of this plan in `Request.plan` and in Redis."""
        return digest(self.to_dict())

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        own = data.get("classes_of")
        return data | {
            "classes": cls._classes(data.get("classes")),
            "classes_of": None if own is None else {str(tag): cls._classes(some) for tag, some in own.items()},
        }

    @staticmethod
    def _classes(some: Any) -> tuple[int, ...] | None:
        return None if some is None else tuple(int(c) for c in some)


@dataclass(frozen=True, slots=True)
class Model(_Record):
    """What the workers run, announced by each of them under `PREFIX + "model"`."""

    version: str
    """`boxlift-<network>-<digest of parameters, weights and classes>`: the model_version everywhere."""
    network: str
    classes: tuple[str, ...]
    """The network's class names by index."""
    own: int = 0
    """How many of them, the last ones, are labels of one project's own: see `Head`."""

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"classes": tuple(str(name) for name in data["classes"]), "own": int(data.get("own", 0))}


@dataclass(frozen=True, slots=True)
class Head(_Record):
    """A linear classifier on a network's features, for labels of one project.

    Its labels are further classes of the network: their indices follow those of the network's own.
    """

    labels: tuple[str, ...]
    weights: str = field(repr=False)
    """Base64 of little-endian float32 (K, D), K labels and D features."""
    bias: tuple[float, ...] = field(repr=False)

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data | {
            "labels": tuple(str(label) for label in data["labels"]),
            "bias": tuple(float(value) for value in data["bias"]),
        }


@dataclass(frozen=True, slots=True)
class Tuning(_Record):
    """What the corrections of one project taught: parameters, and labels of its own."""

    project: int
    base: str
    """Version of the model that it belongs to: weights and classes must be the same."""
    network: str
    parameters: dict[str, Any] | None = None
    """Of `worker.parameters.Parameters`; None for the network's defaults."""
    head: Head | None = None

    @property
    def version(self) -> str:
        """The model_version of what it predicts."""
        return f"boxlift-{self.network}-{digest([self.base, self.project, self.to_dict()])}"

    @classmethod
    def _read(cls, data: dict[str, Any]) -> dict[str, Any]:
        head = data.get("head")
        return data | {"project": int(data["project"]), "head": None if head is None else Head.from_dict(head)}
