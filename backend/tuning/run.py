"""Tune one project: read what people drew, fit, and publish what is better for certain."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from backend.bulk.project import PATIENCE
from backend.bulk.tasks import list_tasks
from backend.connecting import show_version
from backend.corrections import corrections
from backend.plans import Reading, read_config
from backend.predictor import Predictor
from backend.queueing import Jobs
from backend.settings import Settings
from backend.studio import Studio
from backend.tuning.examples import Example, examples
from backend.tunings import Tunings
from worker.contract import Head, Model, Tuning
from worker.errors import LabellingError, NetworkError, QueueError, StudioError

if TYPE_CHECKING:
    from backend.tuning.fetching import Fetched
    from worker.heads import Learned
    from worker.images import ImageLimits
    from worker.learning.cache import MapCache
    from worker.localizer import Localizer
    from worker.parameters import Parameters

log = logging.getLogger("boxlift.tuning")
Say = Callable[[str], object]
PRECISION = "float32"
"""Of the maps that are learned from."""
_ENQUEUED = 1000


class ElsewhereError(NetworkError):
    """This machine cannot have the workers' network; another one may."""


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
    was: str = ""
    """Version that predicted for the project until now."""
    version: str = ""
    """That predicts for the project from now on."""
    published: bool = False
    """Whether the project has another version now."""
    withdrawn: bool = False
    """Whether it is back to the defaults, since its tuning is worse than these."""
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
    was = store.version(project) or base.version
    outcome = Outcome(project, base.version, was=was, version=was)
    current = store.of(project)
    if current is not None and current.base != base.version:
        current = None  # of another network or weights: nothing of it serves
    parameters, head = _learn(settings, studio, base, project, outcome, current, say)
    if parameters is not None or head is not None:
        tuning = Tuning(project, base.version, base.network, parameters, head)
        outcome.version = tuning.version
        if outcome.version != outcome.was and not dry_run:
            _publish(store, studio, tuning, base, outcome, settings.basic_auth)
        elif not dry_run:  # perhaps Label Studio was away when it was published
            _show(studio, project, outcome.version, outcome, settings.basic_auth)
    elif current is not None:
        outcome.version = base.version
        if not dry_run and store.withdraw(project):
            outcome.withdrawn = True
            _show(studio, project, base.version, outcome, settings.basic_auth)
    if repredict and not dry_run:
        outcome.repredicted = _repredict(settings, client, studio, project)
    outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


def _learn(
    settings: Settings,
    studio: Studio,
    base: Model,
    project: int,
    outcome: Outcome,
    current: Tuning | None,
    say: Say,
) -> tuple[dict[str, Any] | None, Head | None]:
    """Parameters (None for the defaults) and labels to use from now on."""
    from backend.cli.worker import fetch_policy
    from backend.tuning.fetching import Fetched
    from worker.images import ImageLimits, fetch
    from worker.learning.cache import MapCache

    # The workers' own reading: which classes compete must not depend on what was tuned before.
    reading = read_config(studio.project(project).label_config or "", base, settings.unmatched)
    if not reading.labelling.drawn_images:
        raise LabellingError(f"project {project}: nothing can be predicted: " + "; ".join(reading.notes))
    made = corrections(studio, project, reading.labelling)
    outcome.annotated = sum(not one.skipped for one in made)
    found = examples(project, made, reading)
    say(f"{outcome.annotated} annotated tasks, {len(found)} pictures with boxes")
    policy = fetch_policy(settings)
    limits = ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    with Fetched(lambda address: fetch(address, policy)) as photos:
        means = _Means(
            cache=MapCache(settings.cache_dir, f"{base.version}-{PRECISION}", server=settings.studio_url),
            network=functools.cache(lambda: _network(settings, base)),
            photos=photos,
            limits=limits,
            say=say,
        )
        return _learn_from(found, reading, base, outcome, current, means)


@dataclass(frozen=True)
class _Means:
    """What learning needs beside what people drew."""

    cache: MapCache
    network: Callable[[], Localizer]
    photos: Fetched
    limits: ImageLimits
    say: Say

    def progress(self, what: str) -> Callable[[int, int], object]:
        """Something that says now and then how far it is."""

        def told(done: int, total: int) -> None:
            if done == total or not done % 40:
                self.say(f"{what}: {done} of {total}")

        return told


def _learn_from(
    found: Sequence[Example], reading: Reading, base: Model, outcome: Outcome, current: Tuning | None, means: _Means
) -> tuple[dict[str, Any] | None, Head | None]:
    from backend.tuning import keeping
    from backend.tuning.gathering import gather
    from backend.tuning.labels import learn_labels
    from worker.learning import Maps
    from worker.learning.tuning import fit

    gathered = gather(found, means.cache, means.network, means.photos, means.limits, means.progress("maps"))
    outcome.photos, outcome.computed, outcome.unusable = len(gathered.maps), gathered.computed, gathered.unusable
    truths = [one.boxes for one in gathered.examples]
    learned = None
    if gathered.maps:
        means.say(f"boxes: fitting to {len(truths)} pictures")
        begun = time.monotonic()
        learned = fit(Maps.joined(gathered.maps), truths, _parameters(base))
        outcome.fit_seconds = round(time.monotonic() - begun, 2)
        outcome.fit = learned.to_dict()
    kept = keeping.parameters(learned, current, gathered.maps, truths)
    if learned is None:
        outcome.notes.append("nobody has drawn boxes on pictures that can be used: annotate some tasks first")
    elif kept.note or not learned.better:
        outcome.notes.append(kept.note or f"boxes stay as they are: {learned.reason}")
    head = None
    if gathered.maps:
        means.say("labels")
        try:
            labels = learn_labels(
                gathered.examples, reading, means.cache, means.network, means.photos, means.limits,
                means.progress("labels"),
            )  # fmt: skip
        except ElsewhereError:
            raise
        except NetworkError as error:
            outcome.notes.append(f"no labels learned: {error}")
        else:
            head, outcome.labels = labels.head, _told(labels)
            outcome.notes.append(f"labels: {labels.reason}")
    config = {label.value for control in reading.labelling.controls for label in control.labels}
    kept_head = keeping.head(head, current, config)
    if kept_head.note:
        outcome.notes.append(kept_head.note)
    return kept.value, kept_head.value


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
    """The workers' network on this machine, in float32: what is learned must not depend on what the machine that
    happened to take the wish up is fast at. Raises ElsewhereError where it is another one or cannot be had."""
    from backend.cli.worker import Start, load

    settings = dataclasses.replace(settings, precision=PRECISION)
    if settings.network != base.network:  # workers were started with another one, or with a fallback
        settings = dataclasses.replace(settings, network=base.network, weights="")
    try:
        localizer = load(Start(settings, settings.device, "", burst=False, batch=8, loaders=1))
    except NetworkError as error:
        raise ElsewhereError(str(error)) from None
    if localizer.version != base.version:
        weights = Path(settings.weights).name or "the published weights"
        raise ElsewhereError(
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
    _show(studio, tuning.project, tuning.version, outcome, basic_auth)


def _show(studio: Studio, project: int, version: str, outcome: Outcome, basic_auth: str) -> None:
    try:
        show_version(studio, project, version, basic_auth)
    except StudioError as error:
        outcome.notes.append(f"Label Studio goes on showing the old version's scores: {error}")


def _repredict(settings: Settings, client: redis.Redis, studio: Studio, project: int) -> int:
    """Put tasks into the queue that nobody has annotated and that lack a prediction of the present version."""
    predictor = Predictor(settings, Jobs.of(client, settings), patience=PATIENCE)
    config = studio.project(project).label_config
    serving = predictor.serving(project, config)
    version = serving[0].version
    rows = [row for row in list_tasks(studio, project) if not row.annotated and version not in row.versions]
    count = 0
    for start in range(0, len(rows), _ENQUEUED):
        part = [{"id": row.id, "data": row.data} for row in rows[start : start + _ENQUEUED]]
        count += predictor.enqueue(project, part, config, serving)
    return count
