"""The projects that ask this backend: what is wrong with a connection, a labelling config or its images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from backend.addresses import is_loopback, own_address
from backend.checks import FAIL, OK, WARN, Check, short
from backend.connecting import OURS, announced_version, same_address
from backend.guard import SECRET_HEADER
from backend.labelling import task_images
from backend.plans import Reading, read_config
from backend.settings import Settings
from backend.studio import Studio
from backend.studio_checks import check_allowed
from worker.contract import Model
from worker.errors import BoxliftError, ImageError, StudioError

if TYPE_CHECKING:
    from label_studio_sdk.types import MlBackend, Webhook

MOST = 100
"""Projects that are looked at where none is named."""
SAMPLE = 3
"""Tasks of a project whose images are tried."""
Fetch = Callable[[str], object]
"""Reads an image from its address; raises ImageError."""


def check_projects(settings: Settings, projects: Sequence[int] = (), url: str = "") -> Iterator[Check]:
    """These projects, or all that are connected to a backend of ours. `url` is where Label Studio reaches it.

    Changes nothing in Label Studio.
    """
    if not settings.studio_url or not settings.studio_token:
        return
    try:
        studio = Studio(settings.studio_url, settings.studio_token)
        numbers = list(projects) or _all(studio)
    except StudioError as error:
        yield Check("projects", FAIL, str(error), "correct what the lines on Label Studio and its token say")
        return
    try:
        checker = _Checker(settings, studio, url or own_address(settings))
        connected = 0
        for number in numbers:
            for check in checker.project(number, wanted=number in projects):
                connected += 1
                yield check
        if not connected:
            yield Check("projects", OK, "none is connected yet: `boxlift connect --project N` does it")
    finally:
        studio.close()


def _all(studio: Studio) -> list[int]:
    """Numbers of the newest projects."""

    def numbers() -> list[int]:
        pages: Iterable[Any] = studio.sdk.projects.list(page_size=MOST)
        return [int(project.id) for project in islice(pages, MOST)]

    return studio.call("its projects", numbers)


class _Checker:
    """What is the same for all projects is found out once."""

    def __init__(self, settings: Settings, studio: Studio, url: str) -> None:
        self._settings = settings
        self._studio = studio
        self._url = url
        self._allowed: dict[str, list[Check]] = {}

    def project(self, number: int, *, wanted: bool) -> Iterator[Check]:
        """One project; nothing where it has no connection of ours and nobody asked for it."""
        name = f"project {number}"
        try:
            backends = self._studio.backends(number)
            ours = [backend for backend in backends if self._is_ours(backend)]
            if not ours and not wanted:
                return
            if not ours:
                advice = f"run `boxlift connect --project {number} --url …`"
                yield Check(name, FAIL, "no connection to a Boxlift backend", advice)
                yield from self._address(self._url)
                return
            found = list(self._problems(number, ours, backends))
        except BoxliftError as error:
            found = [Check(name, FAIL, str(error), "see whether the token's user may open this project")]
        yield from found
        if all(check.state == OK for check in found):
            yield Check(name, OK, "connected, and its images can be read")

    def _is_ours(self, backend: MlBackend) -> bool:
        texts = (backend.title, backend.model_version)
        return any(str(text or "").startswith(OURS) for text in texts) or same_address(backend.url, self._url)

    def _address(self, url: str) -> list[Check]:
        if url not in self._allowed:
            self._allowed[url] = list(check_allowed(self._studio, url))
        return self._allowed[url]

    def _problems(self, number: int, ours: list[MlBackend], backends: list[MlBackend]) -> Iterator[Check]:
        name, repair = f"project {number}", f"run `boxlift connect --project {number} --url …`"
        project = self._studio.project(number)
        asked = min(backends, key=lambda backend: int(backend.id or 0))
        backend = next((one for one in ours if one.id == asked.id), ours[0])
        address = str(backend.url)
        yield from self._address(address)
        if backend.id != asked.id:
            text = f"Label Studio asks only its first connection, {asked.id} to {asked.url}, for predictions"
            yield Check(
                name, WARN, text, f"delete connection {asked.id} in the project's settings to use {address}"
            )
        if backend.state != "CO":
            text = f"Label Studio does not reach {address}: {_first(backend.error_message) or backend.state}"
            advice = f"start `boxlift serve` there, or {repair} with an address that Label Studio can reach"
            if is_loopback(urlsplit(address).hostname or ""):
                advice += " (a container's localhost is the container itself)"
            yield Check(name, FAIL, text, advice)
        if bool(self._settings.basic_auth) != (str(backend.auth_method or "NONE") == "BASIC_AUTH"):
            text = "connection and BOXLIFT_BASIC_AUTH disagree on whether there is a password"
            yield Check(name, FAIL, text, repair)
        version = self._version(number, address, project.label_config or "")
        if isinstance(version, Check):
            yield version
        else:
            yield from self._versions(name, repair, project, backend, version)
        if backend.extra_params:
            text = "the connection's extra params are not used"
            yield Check(name, WARN, text, "write attributes into the labelling config, such as model_max_boxes")
        if not project.show_collab_predictions:
            text = "predictions are not shown to people who label"
            yield Check(name, WARN, text, "switch on Settings, Annotation, Use predictions to prelabel tasks")
        yield from self._webhook(number, address, repair)
        yield from self._labelling(name, repair, project, backend)

    def _version(self, number: int, address: str, config: str) -> str | Check:
        """The version of a project at an address, if it can be reached from here too."""
        try:
            return announced_version(address, number, config, self._settings.basic_auth)
        except StudioError as error:
            advice = "nothing to do if only Label Studio can reach this address"
            return Check(f"project {number}", WARN, short(error), advice)

    def _versions(self, name: str, repair: str, project: Any, backend: MlBackend, version: str) -> Iterator[Check]:
        model = self._model
        if model is not None and not version.startswith(f"{OURS}{model.network}-"):
            text = f"the backend says {version}, the workers of this REDIS_URL run {model.version}"
            yield Check(name, WARN, text, "give backend and workers the same REDIS_URL")
        if project.model_version != version:
            text = f"scores, sorting and sampling go by {project.model_version or 'no version'}, not by {version}"
            yield Check(name, WARN, text, repair)
        elif backend.title != version:
            text = f"its title is {backend.title!r}: a title other than {version} ends up as the project's version"
            yield Check(name, WARN, text, repair)

    def _webhook(self, number: int, address: str, repair: str) -> Iterator[Check]:
        name, url = f"project {number}", f"{address.rstrip('/')}/webhook"
        hooks = [hook for hook in self._studio.webhooks(number) if same_address(hook.url, url)]
        if not hooks:
            text = f"no webhook to {url}: new, changed and deleted tasks are not heard of"
            yield Check(name, WARN, text, repair)
            return
        if len(hooks) > 1:
            text = f"{len(hooks)} webhooks to {url}: every event comes as often"
            yield Check(name, WARN, text, repair)
        if not all(hook.is_active and hook.send_payload and hook.send_for_all_actions for hook in hooks):
            yield Check(name, WARN, f"a webhook to {url} is off, or does not send everything", repair)
        secret = self._settings.webhook_secret
        if secret and not all(_secret(hook) == secret for hook in hooks):
            yield Check(name, FAIL, f"a webhook to {url} does not carry BOXLIFT_WEBHOOK_SECRET", repair)
        if self._settings.basic_auth and not secret:
            text = "events are refused: Label Studio sends no password with them"
            yield Check(name, WARN, text, f"set BOXLIFT_WEBHOOK_SECRET for the backend, and {repair}")

    def _labelling(self, name: str, repair: str, project: Any, backend: MlBackend) -> Iterator[Check]:
        if self._model is None:
            return
        reading = read_config(project.label_config or "", self._model, self._settings.unmatched)
        for note in reading.notes:
            state = WARN if reading.plan is not None else FAIL
            yield Check(name, state, f"labelling config: {note}", "correct it in Settings, Labeling Interface")
        if reading.labelling.smart and not backend.is_interactive:
            text = "its config has smart tools, but the connection is not used for them"
            yield Check(name, WARN, text, repair)
        yield from self._images(name, project, reading)

    def _images(self, name: str, project: Any, reading: Reading) -> Iterator[Check]:
        """Whether workers with these settings could read a few of the project's images."""
        number = int(project.id)

        def sample() -> list[Any]:
            pages: Iterable[Any] = self._studio.sdk.tasks.list(
                project=number, include="id,data", resolve_uri=True, page_size=SAMPLE
            )
            return list(islice(pages, SAMPLE))

        for task in self._studio.call(f"tasks of project {number}", sample):
            for image in islice(task_images(task.data, reading.labelling), 1):
                if image.url.lower().startswith("data:"):
                    continue
                try:
                    self._fetch(image.url)
                except ImageError as error:
                    yield Check(name, FAIL, f"an image of task {task.id}: {error}", _ADVICE)
                    return

    @functools.cached_property
    def _fetch(self) -> Fetch:
        from backend.cli.worker import fetch_policy
        from worker.images import fetch

        policy = replace(fetch_policy(self._settings), headers=lambda url: self._studio.headers())
        return functools.partial(fetch, policy=policy)

    @functools.cached_property
    def _model(self) -> Model | None:
        from backend.queueing import Jobs, connect

        try:
            client = connect(self._settings.redis_url)
        except ValueError:  # an address that is none: the check of Redis says so
            return None
        try:
            return Jobs(client).model()
        except BoxliftError:
            return None
        finally:
            client.close()


_ADVICE = (
    "correct what it names. Local files: LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT for Label Studio, and a local storage in the project; "
    "other servers and cloud storage: BOXLIFT_IMAGE_HOSTS; mounted folders: BOXLIFT_IMAGE_ROOTS"
)


def _secret(hook: Webhook) -> str | None:
    """The secret that a webhook carries, if it carries one."""
    headers = {key.lower(): value for key, value in (hook.headers or {}).items()}
    return headers.get(SECRET_HEADER.lower())


def _first(text: Any) -> str:
    """The first line of what Label Studio says, cut to a readable length."""
    return str(text or "").strip().partition("\n")[0][:200]
