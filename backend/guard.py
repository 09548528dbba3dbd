"""Who may ask: basic auth on everything but /health, and a secret header on webhooks."""

from __future__ import annotations

import hmac

from flask import Request, Response, jsonify

from backend.settings import Settings
from worker.errors import SettingsError

SECRET_HEADER = "X-Boxlift-Secret"  # noqa: S105 - its name, not its value
NO_TRAINING = (
    "BOXLIFT_WEBHOOK_SECRET without BOXLIFT_BASIC_AUTH: *Start training* is refused, since Label Studio sends it "
    "through the connection, without the webhook's headers"
)
"""What does not work with a secret alone. Taking this event from anybody would undo the secret: it costs most."""


def check(settings: Settings) -> None:
    """Raise SettingsError where the settings ask for a protection that could not work."""
    if settings.basic_auth and not all(settings.basic_auth.partition(":")):
        raise SettingsError("BOXLIFT_BASIC_AUTH must be user:password")


def refuse(request: Request, settings: Settings) -> Response | None:
    """The answer to a request that may not be served; None for those that may.

    Label Studio sends a connection's user and password with all but ordinary webhooks: these need the secret.
    /health is open, but says so when it is given wrong ones: that is where Label Studio looks when it connects.
    """
    given = request.authorization
    if request.path == "/health" and given is None:
        return None
    if request.path == "/webhook" and settings.webhook_secret:
        if _same(request.headers.get(SECRET_HEADER, ""), settings.webhook_secret):
            return None
        if not settings.basic_auth:
            return _answer(f"the header {SECRET_HEADER} is missing or wrong: `boxlift connect` sets it")
    if not settings.basic_auth:
        return None
    user, _, password = settings.basic_auth.partition(":")
    if given is not None and given.type == "basic":
        # Both are compared, whatever the first comparison says: time tells nothing.
        right = [_same(given.username or "", user), _same(given.password or "", password)]
        if all(right):
            return None
    return _answer("user or password missing or wrong: enter them where the backend is connected in Label Studio")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _answer(message: str) -> Response:
    response = jsonify(error=message)
    response.status_code = 401
    response.headers["WWW-Authenticate"] = 'Basic realm="boxlift"'
    return response
