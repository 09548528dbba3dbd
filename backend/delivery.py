"""Late results to Label Studio: in bulk, each once, however often Label Studio or this process goes away."""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import redis

from backend.drafts import DRAFTS, write_drafts
from backend.outbox import Outbox
from backend.plans import Reading, read_config
from backend.predictions import to_prediction
from backend.settings import Settings
from backend.tunings import Tunings
from worker.contract import CLOUD, Model, Plan, Result, embedded_address, model_key, plan_key, strings
from worker.errors import BoxliftError, StudioError

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger("boxlift.delivery")

MOST = 1000
"""Results in one round."""
TIMEOUT = 300.0
"""Seconds that Label Studio is given for an answer: an import of a thousand may take it more than a minute."""
UNSURE = 120.0
"""Seconds that an import may go on in Label Studio after its sender has died or given up: its own servers end a
request before that."""
_GONE_FOR_GOOD = (400, 404, 413, 422)
"""Answers to an import that no repetition will change."""


class LabelStudio(Protocol):
    """What delivery needs of `backend.studio.Studio`. Every method may raise StudioError."""

    def task_data(self, project: int, tasks: Sequence[int]) -> dict[int, Mapping[str, Any]]: ...

    def predicted(self, project: int, version: str, tasks: Sequence[int]) -> set[int]: ...

    def import_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> int: ...

    def project(self, project: int) -> Any: ...

    def close(self) -> None: ...

    def set_model_version(self, project: int, version: str) -> None: ...


class Delivery:
    """Empties the outboxes, in a thread between `start` and `stop`, or one round at a time by `deliver`."""

    def __init__(
        self,
        client: redis.Redis,
        studio: LabelStudio,
        *,
        unmatched: str = "skip",
        interval: float = 0.5,
        unsure: float = UNSURE,
        after: Callable[[int, Sequence[Mapping[str, Any]]], object] | None = None,
    ) -> None:
        """`after` is called with the project and each lot of predictions that Label Studio has taken. An import
        that was not answered may go on for `unsure` seconds."""
        self._client = client
        self._outbox = Outbox(client)
        self._tunings = Tunings(client)
        self._studio = studio
        self._unmatched = unmatched
        self._interval = interval
        self._unsure = unsure
        self._after = after
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._adopted: dict[int, str] = {}
        self._pause: dict[int, float] = {}
        self._next: dict[int, float] = {}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """A delivery to the Label Studio that the settings name. Raises StudioError if they do not."""
        from backend.queueing import connect
        from backend.studio import Studio

        studio = Studio(settings.studio_url, settings.studio_token, timeout=TIMEOUT)
        after = functools.partial(write_drafts, studio) if settings.write == DRAFTS else None
        return cls(connect(settings.redis_url), studio, unmatched=settings.unmatched, after=after)

    def start(self) -> None:
        """Deliver from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        """End the thread after the round it is in; what is not sent stays in Redis."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout)
        self._studio.close()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.round()
            except (redis.RedisError, BoxliftError) as error:
                log.warning("waiting: %s", type(error).__name__, extra={"event": "delivery-waits"})
                self._stop.wait(1.0)
            except Exception:
                log.exception("a round of delivery failed")
                self._stop.wait(5.0)

    def round(self) -> int:
        """Deliver what is due, project by project. Returns how many predictions were created."""
        return sum(self._due(project) for project in self._outbox.projects())

    def _due(self, project: int) -> int:
        if time.monotonic() < self._next.get(project, 0.0):
            return 0
        start = time.monotonic()
        try:
            created = self.deliver(project)
        except StudioError as error:
            pause = min(30.0, 2 * self._pause.get(project, 0.5))
            log.warning("project %d waits %.0f s: %s", project, pause, error, extra={"project": project})
        else:
            # Small results at once, but never so that Label Studio does nothing else.
            pause = 0.0
            self._next[project] = time.monotonic() + (time.monotonic() - start)
        self._pause[project] = pause
        if pause:
            self._next[project] = time.monotonic() + pause
            return 0
        return created

    def deliver(self, project: int) -> int:
        """Send up to 1,000 results of a project. Returns how many predictions were created.

        Raises StudioError where Label Studio is away or refuses the token: everything stays.
        """
        with self._outbox.locked(project) as still_ours:
            if still_ours is None:
                return 0
            results, broken = self._outbox.take(project, MOST)
            self._drop(project, broken)
            if not results:
                return 0
            versions: dict[str, dict[int, Result]] = defaultdict(dict)
            for task, result in self._present(project, results).items():
                versions[result.model_version][task] = result
            return sum(self._send(project, version, group, still_ours) for version, group in versions.items())

    def _present(self, project: int, results: dict[int, Result]) -> dict[int, Result]:
        """Those whose task is still there, with the images that were looked at: numbers of deleted tasks are given
        to new ones."""
        try:
            data = self._studio.task_data(project, sorted(results))
        except StudioError as error:
            if error.status != 404:
                raise
            data = {}  # the project itself is gone
        gone = {task: "the task was deleted before its result came" for task in results if task not in data}
        for task, result in results.items():
            if task in data and not _same_images(result, data[task]):
                gone[task] = "the task shows another image than the one that was looked at"
        self._drop(project, gone)
        return {task: result for task, result in results.items() if task not in gone}

    def _send(self, project: int, version: str, results: dict[int, Result], still_ours: Callable[[], bool]) -> int:
        known = self._studio.predicted(project, version, sorted(results))
        self._outbox.done(project, known)
        predictions: dict[int, dict[str, Any]] = {}
        useless: dict[int, str] = {}
        for task, result in results.items():
            if task in known:
                continue
            try:
                prediction = to_prediction(result, self._reading(result).mapping)
            except BoxliftError as error:
                useless[task] = str(error)
                continue
            if prediction is None:  # the worker has reported why already
                self._outbox.done(project, [task])
            else:
                predictions[task] = {"task": task, **prediction}
        self._drop(project, useless)
        if not predictions or not still_ours():
            return 0
        if self._outbox.importing(project):
            raise StudioError(
                f"it may still be importing what it was sent before: {len(predictions)} results wait for its end"
            )
        return self._import(project, version, predictions)

    def _import(self, project: int, version: str, predictions: dict[int, dict[str, Any]]) -> int:
        # Said before: a sender that is killed cannot say it any more.
        self._outbox.expect_import(project, self._unsure)
        try:
            created = self._studio.import_predictions(project, list(predictions.values()))
        except StudioError as error:
            # Refused, failed (500), or never sent is clear: it is over. No answer, or that of a proxy which would
            # not wait (502 and above), says nothing.
            unsent = isinstance(error.__context__, httpx.ConnectError | httpx.ConnectTimeout)
            over = error.status is not None and error.status <= 500
            self._outbox.expect_import(project, 0.0 if over or unsent else self._unsure)
            if error.status not in _GONE_FOR_GOOD:
                raise
            return self._halve(project, version, predictions, str(error))
        self._outbox.expect_import(project, 0.0)
        log.info("%d predictions delivered", created, extra={"project": project, "version": version})
        for task in predictions:
            log.debug("delivered", extra={"project": project, "task": task, "version": version})
        if created < len(predictions):  # it drops what it does not like and does not say which
            stored = self._studio.predicted(project, version, sorted(predictions))
            reason = "Label Studio did not store the prediction: see whether the labelling config has changed"
            self._drop(project, {task: reason for task in predictions if task not in stored})
        self._outbox.done(project, predictions)
        self._adopt(project, version)
        if self._after is not None:
            self._after(project, list(predictions.values()))
        return created

    def _halve(self, project: int, version: str, predictions: dict[int, dict[str, Any]], reason: str) -> int:
        """Label Studio refused all because of some: halve until each culprit stands alone."""
        if len(predictions) == 1:
            self._drop(project, dict.fromkeys(predictions, reason))
            return 0
        tasks = sorted(predictions)
        middle = len(tasks) // 2
        halves = [{task: predictions[task] for task in half} for half in (tasks[:middle], tasks[middle:])]
        return sum(self._import(project, version, half) for half in halves)

    def _adopt(self, project: int, version: str) -> None:
        """Make the version the project's own, once there are predictions of it: only then does the Data Manager
        show and sort by their scores. A version that is not one of ours is left alone."""
        if self._adopted.get(project) == version:
            return
        if project in self._adopted or self._tunings.of(project) is not None:
            present = self._tunings.version(project)
            if present is not None and present != version:
                return  # a late result of what was there before
        self._adopted[project] = version
        try:
            present = self._studio.project(project).model_version or ""
            if present != version and (not present or present.startswith("boxlift-")):
                self._studio.set_model_version(project, version)
        except StudioError as error:
            log.warning("scores will not show in the Data Manager: %s", error, extra={"project": project})

    def _reading(self, result: Result) -> Reading:
        """What the project's config of that time means. Raises StudioError where Redis has forgotten it."""
        plan, model = (self._client.get(key) for key in (plan_key(result.plan), model_key(result.model_version)))
        if plan is None or model is None:
            raise StudioError("its labelling config or model is no longer in Redis: ask for its predictions again")
        config = Plan.from_dict(json.loads(plan)).label_config
        return read_config(config, Model.from_dict(json.loads(model)), self._unmatched)

    def _drop(self, project: int, reasons: dict[int, str]) -> None:
        """These can never be delivered: say so where people look, and let go."""
        self._outbox.report(project, reasons)
        self._outbox.done(project, reasons)
        for task, reason in reasons.items():
            log.warning("not delivered: %s", reason, extra={"project": project, "task": task})


@contextmanager
def delivering(settings: Settings) -> Iterator[None]:
    """Push late results to Label Studio meanwhile, if its address and token are known."""
    if not (settings.studio_url and settings.studio_token):
        log.warning("LABEL_STUDIO_URL or LABEL_STUDIO_API_KEY is not set: late results are pushed by nobody here")
        yield
        return
    delivery = Delivery.of(settings)
    delivery.start()
    try:
        yield
    finally:
        delivery.stop()


def _same_images(result: Result, data: Mapping[str, Any]) -> bool:
    """Whether a task's data still hold the addresses that were looked at; True where that cannot be told."""
    now = {_place(value) for value in strings(data)}
    before = {_place(image.image.url) for image in result.images}
    return None in now or None in before or before <= now


def _place(url: str) -> str | None:
    """What stays the same of an image's address; None for links that Label Studio makes anew for cloud storage."""
    parts = urlsplit(embedded_address(0, 0, url))
    if parts.fragment and parts.path == "/api/tasks":
        return parts.fragment
    if parts.scheme in CLOUD or parts.path.rstrip("/").endswith(("/resolve", "/presign")):
        return None
    return unquote(parts.path) + "".join(parse_qs(parts.query).get("d", []))
