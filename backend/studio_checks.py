"""Label Studio, its token and the backend's address: what `boxlift doctor` asks the running servers themselves."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import httpx

from backend.addresses import is_loopback, own_address, refusal
from backend.checks import FAIL, OK, WARN, Check, short
from backend.guard import NO_TRAINING
from backend.settings import Settings
from backend.studio import Studio
from worker.errors import StudioError

RENEWAL = "create a personal access token in Label Studio (Account & Settings) and set LABEL_STUDIO_API_KEY to it"
SOON = 14 * 86400.0
"""Seconds before a token's end from which on it is worth a warning."""
PREDICT_SECONDS = 100.0
"""How long Label Studio waits for /predict; the timeout of the connection is not looked at."""
LIMITS = {"/health": 1.0, "/setup": 3.0}
"""Seconds that Label Studio waits for other routes."""


def check_studio(settings: Settings) -> Iterator[Check]:
    """Label Studio answers, and takes our token."""
    if not settings.studio_url:
        advice = "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY to read uploads and to push late predictions"
        yield Check("label studio", FAIL, "no address is set", advice)
        return
    url = settings.studio_url.rstrip("/")
    with httpx.Client(timeout=10, follow_redirects=False) as client:
        try:
            answer = client.get(f"{url}/api/version")
            version = answer.json().get("release", "unknown") if answer.is_success else "unknown"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
            advice = "set LABEL_STUDIO_URL to an address that works from here (in a container, not localhost)"
            yield Check("label studio", FAIL, f"{url} does not answer as one: {short(error)}", advice)
            return
        if not answer.is_success:
            advice = "set LABEL_STUDIO_URL to where Label Studio runs, with its path if it has one"
            yield Check("label studio", FAIL, f"{url}/api/version answered {answer.status_code}", advice)
            return
        yield Check("label studio", OK, f"version {version} at {url}")
        yield from _check_token(client, url, settings.studio_token)


def _check_token(client: httpx.Client, url: str, token: str) -> Iterator[Check]:
    if not token:
        yield Check("token", FAIL, "none is set: uploads cannot be read, late answers not be pushed", RENEWAL)
        return
    personal = token.count(".") == 2  # a JSON web token
    kind = "personal access token" if personal else "legacy token"
    try:
        if personal:
            answer = client.post(f"{url}/api/token/refresh/", json={"refresh": token})
            if not answer.is_success:
                text = f"the {kind} is not valid any more (status {answer.status_code})"
                yield Check("token", FAIL, text, RENEWAL)
                return
            header = f"Bearer {answer.json()['access']}"
        else:
            header = f"Token {token}"
        answer = client.get(f"{url}/api/current-user/whoami", headers={"Authorization": header})
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        yield Check("token", FAIL, f"it could not be tried: {short(error)}", "try again")
        return
    if answer.is_success:
        yield Check("token", OK, f"{kind} of {answer.json().get('email', 'a user')}")
        left = ends(token) - time.time()
        if left < SOON:
            yield Check("token", WARN, f"the {kind} ends in {max(left, 0.0) / 86400:.0f} days", RENEWAL)
        return
    if personal:
        yield Check("token", FAIL, f"the {kind} is refused (status {answer.status_code})", RENEWAL)
        return
    advice = f"{RENEWAL}; or allow legacy tokens in the organisation's settings"
    text = f"the {kind} is refused (status {answer.status_code}): they are off by default"
    yield Check("token", FAIL, text, advice)


def ends(token: str) -> float:
    """When a personal access token ends, in seconds since 1970; infinity where it does not say."""
    try:
        _, claims, _ = token.split(".")
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def check_backend(settings: Settings) -> Iterator[Check]:
    """The backend answers where the settings say that it listens, fast enough, and only to those who may ask."""
    yield from _check_answers(settings)
    yield from _check_protection(settings)


def _check_protection(settings: Settings) -> Iterator[Check]:
    if settings.basic_auth:
        return
    if settings.webhook_secret:
        advice = "set BOXLIFT_BASIC_AUTH too, and run `boxlift connect`"
        yield Check("backend", WARN, NO_TRAINING, advice)
    if not is_loopback(settings.host):
        text = f"it listens on {settings.host} and asks nobody for a password"
        advice = "set BOXLIFT_BASIC_AUTH and BOXLIFT_WEBHOOK_SECRET, and run `boxlift connect`"
        yield Check("backend", WARN, text, advice)


def _check_answers(settings: Settings) -> Iterator[Check]:
    url = own_address(settings)
    user, _, password = settings.basic_auth.partition(":")
    took: dict[str, float] = {}
    try:
        # Without a password where none is set: None is httpx's word for that.
        auth = httpx.BasicAuth(user, password) if settings.basic_auth else None
        with httpx.Client(base_url=url, auth=auth, timeout=10, trust_env=False) as client:
            started = time.monotonic()
            health = client.get("/health")
            took["/health"] = time.monotonic() - started
            started = time.monotonic()
            setup = client.post("/setup", json={"schema": "<View/>"})
            took["/setup"] = time.monotonic() - started
            if 401 not in (health.status_code, setup.status_code) and health.json().get("status") != "UP":
                raise ValueError(f"/health answered {health.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        text = f"{url} does not answer: {short(error)}"
        yield Check("backend", WARN, text, "run `boxlift serve` (nothing to do if it runs on another machine)")
        return
    if 401 in (health.status_code, setup.status_code):
        text, advice = f"{url} was started with another BOXLIFT_BASIC_AUTH", "start it and this with the same one"
        yield Check("backend", FAIL, text, advice)
    else:
        yield Check("backend", OK, f"answers at {url}")
    for path, seconds in took.items():
        if seconds > LIMITS[path]:
            text = f"{path} took {seconds:.1f} s, Label Studio waits {LIMITS[path]:g} s"
            yield Check("backend", WARN, text, "see whether Redis is slow or far, and what else this machine does")
    if settings.answer_seconds >= PREDICT_SECONDS:
        text = f"BOXLIFT_ANSWER_SECONDS is {settings.answer_seconds:g}, Label Studio waits {PREDICT_SECONDS:g} s"
        yield Check("backend", WARN, text, "set it to 60 or less: what is not ready is pushed later")


def check_allowed(studio: Studio, url: str) -> Iterator[Check]:
    """Label Studio may call this address, and send it webhooks. Asks without making anything: for a project 0."""
    for path, whole, what in (
        ("api/ml/", url, "a connection to"),
        ("api/webhooks/", f"{url.rstrip('/')}/webhook", "webhooks to"),
    ):
        try:
            studio.request("POST", path, f"{what} {whole}", {"project": 0, "url": whole})
        except StudioError as error:
            reason = refusal(error)
            if reason is not None:
                yield Check("address", FAIL, f"Label Studio refuses {what} {whole}: {reason[0]}", reason[1])
