"""Tune one project: read what people drew, fit, and publish what is better for certain."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from backend.bulk.project import PATIENCE
from backend.bulk.tasks import list_tasks
from backend.connecting import show_version
from backend.corrections import corrections
from backend.plans import read_config
from backend.predictor import Predictor
from backend.queueing import Jobs
from backend.settings import Settings
from backend.studio import Studio
from backend.tuning.examples import examples
from backend.tunings import Tunings
from worker.contract import Head, Model, Tuning
from worker.errors import LabellingError, NetworkError, QueueError, StudioError

if TYPE_CHECKING:
    from worker.heads import Learned
    from worker.learning.tuning import Fit
    from worker.localizer import Localizer
    from worker.parameters import Parameters

log = logging.getLogger("boxlift.tuning")
Say = Callable[[str], object]
_ENQUEUED = 1000


@dataclass
class Outcome:
    """What was found and done."""

    project: int
    base: str
    """Version of the workers' model."""
    annotated: int = 0
    """Tasks that people have annotated."""
    photos: int = 0
    """Pictures with boxes of theirs, whose maps could be had."""
    computed: int = 0
    """Of them, those that the network had to look at."""
    unusable: int = 0
    fit: dict[str, Any] = field(default_factory=dict)
    """See `worker.learning.tuning.Fit`."""
    labels: dict[str, Any] = field(default_factory=dict)
    """See `worker.heads.training.Learned`; `head` holds the names of the labels that were learned."""
    version: str = ""
    """That predicts for the project from now on."""
    published: bool = False
    repredicted: int = 0
    """Tasks put into the queue."""
    seconds: float = 0.0
    fit_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)


def tune(
    settings: Settings,
    client: redis.Redis,
    studio: Studio,
    project: int,
    *,
    dry_run: bool = False,
    repredict: bool = False,
    say: Say = lambda line: None,
) -> Outcome:
    """Learn from the project's corrections. Raises StudioError, QueueError, NetworkError, LabellingError."""
    start = time.monotonic()
    store = Tunings(client)
    base = store.announced()
    if base is None:
        raise QueueError("no worker has announced a model yet: start `boxlift worker`")
    outcome = Outcome(project, base.version, version=store.version(project) or base.version)
    learned, head = _learn(settings, studio, base, project, outcome, say)
    better = learned is not None and learned.better
    if better or head is not None:
        parameters = learned.parameters.to_dict() if learned is not None and better else None
        tuning = Tuning(project, base.version, base.network, parameters, head)
        outcome.version = tuning.version
        if not dry_run:
            _publish(store, studio, tuning, base, outcome, settings.basic_auth)
    if repredict and not dry_run:
        outcome.repredicted = _repredict(settings, client, studio, project)
    outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


def _learn(
    settings: Settings, studio: Studio, base: Model, project: int, outcome: Outcome, say: Say
) -> tuple[Fit | None, Head | None]:
    """Parameters and labels."""
    from backend.cli.worker import fetch_policy
    from backend.tuning.gathering import gather
    from backend.tuning.labels import learn_labels
    from worker.images import ImageLimits
    from worker.learning import Maps
    from worker.learning.cache import MapCache
    from worker.learning.tuning import fit

    # The workers' own reading: which classes compete must not depend on what was tuned before.
    reading = read_config(studio.project(project).label_config or "", base, settings.unmatched)
    if not reading.labelling.drawn_images:
        raise LabellingError(f"project {project}: nothing can be predicted: " + "; ".join(reading.notes))
    made = corrections(studio, project, reading.labelling)
    outcome.annotated = sum(not one.skipped for one in made)
    found = examples(project, made, reading)
    say(f"{outcome.annotated} annotated tasks, {len(found)} pictures with boxes")
    cache = MapCache(settings.cache_dir, base.version)
    network = functools.cache(lambda: _network(settings, base))
    policy = fetch_policy(settings)
    limits = ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    gathered = gather(
        found,
        cache,
        network,
        policy,
        limits,
        lambda done, total: say(f"maps: {done} of {total}") if done == total or not done % 80 else None,
    )
    outcome.photos, outcome.computed, outcome.unusable = len(gathered.maps), gathered.computed, gathered.unusable
    if not gathered.maps:
        outcome.notes.append("nobody has drawn boxes on pictures that can be used: annotate some tasks first")
        return None, None
    begun = time.monotonic()
    learned = fit(Maps.joined(gathered.maps), [one.boxes for one in gathered.examples], _parameters(base))
    outcome.fit_seconds = round(time.monotonic() - begun, 2)
    outcome.fit = learned.to_dict()
    if not learned.better:
        outcome.notes.append(f"boxes stay as they are: {learned.reason}")
    say("labels")
    try:
        labels = learn_labels(gathered.examples, reading, cache, network, policy, limits)
    except NetworkError as error:
        outcome.notes.append(f"no labels learned: {error}")
        return learned, None
    outcome.labels = _told(labels)
    outcome.notes.append(f"labels: {labels.reason}")
    return learned, labels.head


def _told(labels: Learned) -> dict[str, Any]:
    """Everything but the weights, ready for JSON."""
    told = dataclasses.asdict(dataclasses.replace(labels, head=None, too_few={}))
    names = list(labels.head.labels) if labels.head else []
    told = {name: value for name, value in told.items() if value == value}  # strength may be nan
    return told | {"head": names, "too_few": dict(labels.too_few)}


def _parameters(base: Model) -> Parameters:
    """The defaults, which are what is known before anybody has corrected anything."""
    from worker.networks.load import find_entry
    from worker.parameters import Parameters

    return Parameters.of(base.network, find_entry(base.network).layers)


def _network(settings: Settings, base: Model) -> Localizer:
    """The workers' network on this machine. Raises NetworkError where it is another one."""
    from backend.cli.worker import Start, load

    if settings.network != base.network:  # workers were started with another one, or with a fallback
        settings = dataclasses.replace(settings, network=base.network, weights="")
    localizer = load(Start(settings, settings.device, "", burst=False, batch=8, loaders=1))
    if localizer.version != base.version:
        weights = Path(settings.weights).name or "the published weights"
        raise NetworkError(
            f"workers run {base.version}, but {settings.network} with {weights} is {localizer.version} here: "
            "set BOXLIFT_NETWORK and BOXLIFT_WEIGHTS to theirs"
        )
    return localizer


def _publish(
    store: Tunings, studio: Studio, tuning: Tuning, base: Model, outcome: Outcome, basic_auth: str
) -> None:
    store.publish(tuning, base)
    outcome.published = True
    log.info("published", extra={"project": tuning.project, "version": tuning.version})
    try:
        show_version(studio, tuning.project, tuning.version, basic_auth)
    except StudioError as error:
        outcome.notes.append(f"Label Studio goes on showing the old version's scores: {error}")


def _repredict(settings: Settings, client: redis.Redis, studio: Studio, project: int) -> int:
    """Put tasks into the queue that nobody has annotated and that lack a prediction of the present version."""
    jobs = Jobs(
        client,
        timeout=settings.job_timeout,
        retries=settings.job_retries,
        result_ttl=settings.result_ttl,
        limit=settings.queue_limit,
    )
    predictor = Predictor(settings, jobs, patience=PATIENCE)
    config = studio.project(project).label_config
    serving = predictor.serving(project, config)
    version = serving[0].version
    rows = [row for row in list_tasks(studio, project) if not row.annotated and version not in row.versions]
    count = 0
    for start in range(0, len(rows), _ENQUEUED):
        part = [{"id": row.id, "data": row.data} for row in rows[start : start + _ENQUEUED]]
        count += predictor.enqueue(project, part, config, serving)
    return count
