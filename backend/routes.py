"""The routes that Label Studio calls. Thin: read the request, ask a model, answer as Label Studio accepts it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, UnsupportedMediaType

from backend.events import Events
from backend.health import Health
from backend.model import BoxliftModel, asked_interactively
from backend.predictor import Predictor, project_id, task_id
from worker.errors import BoxliftError, QueueFullError

log = logging.getLogger(__name__)
routes = Blueprint("boxlift", __name__)


def _predictor() -> Predictor:
    found: Predictor = current_app.extensions["boxlift"]
    return found


def _events() -> Events:
    found: Events = current_app.extensions["boxlift-events"]
    return found


def _health() -> Health:
    found: Health = current_app.extensions["boxlift-health"]
    return found


def _body() -> dict[str, Any]:
    """The request's JSON object. Raises BadRequest or UnsupportedMediaType: never half of it, never a traceback."""
    if not request.is_json:  # a web page cannot send this type to somebody's localhost without asking first
        raise UnsupportedMediaType("send JSON, as Content-Type: application/json")
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


@routes.get("/health")
def health() -> Response:
    """Alive, and the state as last seen: waits for nobody, so that it is quick whatever Redis and workers do."""
    return jsonify(status="UP", model_class=BoxliftModel.__name__, state=_health().state().word)


@routes.get("/ready")
def ready() -> tuple[Response, int]:
    """Whether predictions are made, and if not, why: 200 or 503."""
    state = _health().state()
    return jsonify(state=state.word, message=state.message), 200 if state.ready else 503


@routes.get("/")
def home() -> Response:
    """What a person sees who opens the backend's address."""
    state: dict[str, Any] = {"status": "UP", "product": "Boxlift", "model_version": None}
    try:
        state["model_version"] = _predictor().model().version
        state["message"] = "ready: connect this address in Label Studio under Settings, Model"
    except BoxliftError as error:
        state["message"] = str(error)
    return jsonify(state)


@routes.post("/setup")
def setup() -> Response | tuple[Response, int]:
    """The version, and what the labelling config cannot have. 503 before any worker has announced a model."""
    body = _body()
    project = project_id(body.get("project"))
    reading = _predictor().read(body.get("schema"), project)
    answer: dict[str, Any] = {"model_version": _predictor().model(project).version}
    if reading.notes:
        answer["message"] = "; ".join(reading.notes)
        answer["unreachable"] = list(reading.mapping.unreachable)
    return jsonify(answer)


@routes.post("/predict")
def predict() -> Response:
    """One entry per task, in order."""
    body = _body()
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise BadRequest("`tasks` must be a list")
    params = body.get("params")
    context = params.get("context") if isinstance(params, Mapping) else None
    context = context if isinstance(context, Mapping) else None
    project = project_id(body.get("project"))
    model = BoxliftModel(project, _text(body.get("label_config")), predictor=_predictor())
    entries = model.predict(tasks, context=context)
    after = current_app.extensions["boxlift-after"]
    if after is not None and project is not None and not asked_interactively(tasks, context):
        pairs = zip(tasks, entries, strict=True)
        after(project, [{"task": task_id(task), **entry} for task, entry in pairs if isinstance(entry, dict)])
    return jsonify(results=entries)


@routes.post("/webhook")
def webhook() -> tuple[Response, int]:
    """Any event: taken, or politely let go."""
    body = _body()
    return jsonify(status=_events().take(body.get("action"), body)), 201


@routes.route("/versions", methods=["GET", "POST"])
def versions() -> Response:
    """The version that predicts: with `?project=`, for that project. None before a worker announced it."""
    try:
        return jsonify(versions=[_predictor().model(project_id(request.args.get("project"))).version])
    except BoxliftError as error:
        return jsonify(versions=[], message=str(error))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def on_http_error(error: HTTPException) -> tuple[Response, int]:
    """Bad requests, unknown routes and the like, as JSON."""
    return jsonify(error=error.description or error.name), error.code or 500


def on_full(error: QueueFullError) -> Response:
    """503 with the time after which it is worth asking again."""
    response = _unavailable(str(error))
    response.headers["Retry-After"] = str(getattr(error, "retry_after", 60))
    return response


def on_boxlift_error(error: BoxliftError) -> Response:
    """What was foreseen but cannot be answered now."""
    return _unavailable(str(error))


def _unavailable(message: str) -> Response:
    response = jsonify(error=message)
    # Label Studio shows people only the status line of a failed /setup: the reason must stand there.
    reason = " ".join(message.encode("ascii", "ignore").decode().split())[:200]
    response.status = f"503 {reason or 'Service Unavailable'}"
    return response


def on_exception(error: Exception) -> tuple[Response, int]:
    """A fault of ours: the traceback goes to the log, a plain sentence to the client."""
    log.error("unexpected error on %s", request.path, exc_info=error)
    return jsonify(error="an unexpected error, see the backend's log"), 500
