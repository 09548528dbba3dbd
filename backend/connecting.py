"""Connecting a Label Studio project to a backend, or repairing its connection, so that everything works at once:
scores in the Data Manager, sorting and uncertainty sampling by them, and webhooks that carry the secret."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import httpx

from backend.addresses import refusal
from backend.guard import NO_TRAINING, SECRET_HEADER
from backend.studio import Studio
from worker.errors import StudioError

OURS = "boxlift-"
"""What all our versions start with."""
UNCERTAIN = "Uncertainty sampling"
_DISCONNECTED = "DI"


@dataclass(frozen=True)
class Wish:
    """How a project is to be connected."""

    url: str
    """The backend's address as Label Studio reaches it."""
    basic_auth: str = field(default="", repr=False)
    webhook_secret: str = field(default="", repr=False)
    interactive: bool = True
    """Whether smart tools ask this backend."""
    uncertainty: bool = False
    """Whether tasks come to people with the lowest score first."""
    replace: bool = False
    """Whether predictions of older versions of ours are deleted."""


@dataclass
class Report:
    """What was found and done."""

    version: str
    backend: int = 0
    """Label Studio's number of the connection."""
    done: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def announced_version(url: str, project: int, label_config: str, basic_auth: str = "") -> str:
    """The version that the backend at `url` answers for a project. Raises StudioError where none runs there."""
    user, _, password = basic_auth.partition(":")
    try:
        # As Label Studio itself asks: what /setup says is what predictions of this project must carry.
        answer = httpx.post(
            f"{url.rstrip('/')}/setup",
            json={"project": f"{project}.0", "schema": label_config},
            auth=(user, password) if basic_auth else None,
            timeout=10,
            trust_env=False,
        )
        if answer.status_code == 401:
            raise StudioError(f"the backend at {url} was started with another BOXLIFT_BASIC_AUTH: use the same")
        told = answer.json()
        version, reason = told.get("model_version"), told.get("error")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        raise StudioError(
            f"no backend answers at {url} ({type(error).__name__}): start `boxlift serve`, or give --url"
        ) from None
    if not version:
        raise StudioError(f"the backend at {url} has no model: {reason or 'start `boxlift worker`'}")
    return str(version)


def connect(studio: Studio, project: int, version: str, wish: Wish) -> Report:
    """Create or repair a project's connection. Every step is safe to repeat. Raises StudioError."""
    report = Report(version)
    studio.project(project)  # is it there at all
    _backend(studio, project, wish, report)
    _webhook(studio, project, wish, report)
    # Read only now: the end of a connection takes its title away from the project.
    _project(studio, studio.project(project), wish, report)
    _old(studio, project, wish, report)
    return report


def _backend(studio: Studio, project: int, wish: Wish, report: Report) -> None:
    backends = studio.backends(project)
    same = [backend for backend in backends if same_address(backend.url, wish.url)]
    values = _values(project, wish.url, report.version, wish.basic_auth) | {"is_interactive": wish.interactive}
    try:
        if same:
            kept = same[0]
            studio.call("the connection's repair", lambda: studio.sdk.ml.update(id=_id(kept), **values))
            report.backend = _id(kept)
            report.done.append(f"connection {report.backend} repaired: title {report.version}")
        else:
            made = studio.call("the connection", lambda: studio.sdk.ml.create(**values))
            report.backend = _id(made)
            report.done.append(f"connection {report.backend} made: title {report.version}")
    except StudioError as error:
        raise StudioError(_with_advice(error), error.status) from None
    for extra in same[1:]:
        _disconnect(studio, extra)
        report.done.append(f"double connection {extra.id} deleted")
    others = [backend for backend in backends if backend not in same]
    for other in [backend for backend in others if _gone(studio, backend)]:
        _disconnect(studio, other)
        others.remove(other)
        for hook in studio.webhooks(project):
            if same_address(hook.url, f"{str(other.url).rstrip('/')}/webhook"):
                studio.call("an old webhook's end", functools.partial(studio.sdk.webhooks.delete, id=_id(hook)))
        report.done.append(f"connection {other.id} deleted: nothing answers at {other.url} any more")
    first = min((_id(backend) for backend in others), default=report.backend)
    if first < report.backend:
        report.warnings.append(
            f"Label Studio asks only connection {first}, the first one, for predictions: delete it to use this one"
        )


def _values(project: int, url: str, title: str, basic_auth: str) -> dict[str, Any]:
    """What Label Studio needs to check a connection: at every change of it, all of this."""
    values = {
        "project": project,
        "url": url,
        "title": title,
        "auth_method": "BASIC_AUTH" if basic_auth else "NONE",
    }
    if basic_auth:
        user, _, password = basic_auth.partition(":")
        values |= {"basic_auth_user": user, "basic_auth_pass": password}
    return values


def show_version(studio: Studio, project: int, version: str, basic_auth: str = "") -> None:
    """Have Label Studio show this version's predictions and scores: it knows versions by the connection's title.
    Somebody else's version is left alone. Raises StudioError."""
    ours = [one for one in studio.backends(project) if str(one.title).startswith(OURS)]
    for backend in ours:
        values = _values(project, str(backend.url), version, basic_auth)
        studio.call("the connection's title", functools.partial(studio.sdk.ml.update, id=_id(backend), **values))
    present = str(studio.project(project).model_version or "")
    if ours and (not present or present.startswith(OURS)):
        studio.set_model_version(project, version)


def _disconnect(studio: Studio, backend: Any) -> None:
    studio.call("a connection's end", functools.partial(studio.sdk.ml.delete, id=_id(backend)))


def _gone(studio: Studio, backend: Any) -> bool:
    """Whether this is a connection of ours to an address where nothing answers. Asking makes Label Studio look."""
    if not str(backend.title).startswith(OURS):
        return False
    return bool(studio.call("a connection", lambda: studio.sdk.ml.get(id=_id(backend))).state == _DISCONNECTED)


def _webhook(studio: Studio, project: int, wish: Wish, report: Report) -> None:
    """One active webhook for all events, with the secret: connecting makes one without, or none at all."""
    url = f"{wish.url.rstrip('/')}/webhook"
    headers = {SECRET_HEADER: wish.webhook_secret} if wish.webhook_secret else {}
    found = [hook for hook in studio.webhooks(project) if same_address(hook.url, url)]
    values: dict[str, Any] = {"url": url, "is_active": True, "send_payload": True, "send_for_all_actions": True}
    try:
        if found:
            hook = found[0]
            values["headers"] = {**_without_secret(hook.headers), **headers}
            studio.call("the webhook's repair", lambda: studio.sdk.webhooks.update(id=_id(hook), **values))
            report.done.append(f"webhook {hook.id} {'carries the secret' if headers else 'is active'}")
        else:
            studio.call("a webhook", lambda: studio.sdk.webhooks.create(project=project, headers=headers, **values))
            report.done.append("webhook made" + (" with the secret" if headers else ""))
    except StudioError as error:
        report.warnings.append(f"no webhook was set: {_with_advice(error)}")
    for extra in found[1:]:
        studio.call("a double webhook's end", functools.partial(studio.sdk.webhooks.delete, id=_id(extra)))
        report.done.append(f"double webhook {extra.id} deleted")
    if wish.webhook_secret and not wish.basic_auth:
        report.warnings.append(f"{NO_TRAINING}: set BOXLIFT_BASIC_AUTH too")


def _with_advice(error: StudioError) -> str:
    """What Label Studio said of an address, and what to do about it."""
    found = refusal(error)
    return f"{error}. {found[0].capitalize()}: {found[1]}" if found else str(error)


def _project(studio: Studio, present: Any, wish: Wish, report: Report) -> None:
    values: dict[str, Any] = {}
    if present.model_version != report.version:
        values["model_version"] = report.version
    if not present.show_collab_predictions:
        values["show_collab_predictions"] = True
    if wish.uncertainty and present.sampling != UNCERTAIN:
        values["sampling"] = UNCERTAIN
    if values:
        studio.call("the project's settings", lambda: studio.sdk.projects.update(id=_id(present), **values))
        report.done.append("project set: " + ", ".join(f"{name} = {value}" for name, value in values.items()))


def _old(studio: Studio, project: int, wish: Wish, report: Report) -> None:
    """Predictions of our older versions: deleted or kept, as wished; others' are nobody's business."""
    stored = studio.versions(project)
    old = {
        version: n for version, n in stored.items() if n and version.startswith(OURS) and version != report.version
    }
    for version, number in old.items():
        if wish.replace:
            studio.delete_predictions(project, version)
            report.done.append(f"{number} predictions of {version} deleted")
        else:
            report.done.append(f"{number} predictions of {version} kept")


def _id(thing: Any) -> int:
    return int(thing.id)


def same_address(one: str | None, other: str) -> bool:
    """Whether two addresses differ in nothing but case and a final slash."""
    return (one or "").rstrip("/").lower() == other.rstrip("/").lower()


def _without_secret(headers: Any) -> dict[str, str]:
    present = headers if isinstance(headers, dict) else {}
    return {name: value for name, value in present.items() if name.lower() != SECRET_HEADER.lower()}
