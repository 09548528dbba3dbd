"""The backend as a WSGI application. Importing this never imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from backend import guard
from backend.background import Background
from backend.drafts import DRAFTS, write_drafts
from backend.events import Events
from backend.health import Health
from backend.metrics import metrics_routes
from backend.predictor import Predictor, Queue
from backend.queueing import connect
from backend.routes import on_boxlift_error, on_exception, on_full, on_http_error, routes
from backend.settings import Settings
from backend.studio import Studio
from worker.errors import BoxliftError, QueueFullError

After = Callable[[int, list[dict[str, Any]]], object]
"""Project and predictions that were just answered → what is done after the answer."""


def create_app(settings: Settings, jobs: Queue | None = None) -> Flask:
    """The application for these settings; `jobs` stands in for the queue on the settings' Redis.

    Nothing is connected before the first request. Raises SettingsError, and StudioError for drafts without a
    Label Studio to write them to.
    """
    guard.check(settings)
    app = Flask("boxlift", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    predictor = Predictor(settings, jobs) if jobs is not None else Predictor.from_settings(settings)
    app.extensions["boxlift"] = predictor
    background = app.extensions["boxlift-background"] = Background()
    app.extensions["boxlift-events"] = Events(predictor, background)
    app.extensions["boxlift-health"] = Health(connect(settings.redis_url))
    drafts = app.extensions["boxlift-drafts"] = Background()  # of its own: it waits for Label Studio, not for Redis
    app.extensions["boxlift-after"] = _after(settings, drafts)

    @app.before_request
    def refuse() -> Response | None:
        return guard.refuse(request, settings)

    app.register_blueprint(routes)
    app.register_blueprint(metrics_routes(settings.redis_url))
    app.register_error_handler(HTTPException, on_http_error)
    app.register_error_handler(QueueFullError, on_full)
    app.register_error_handler(BoxliftError, on_boxlift_error)
    app.register_error_handler(Exception, on_exception)
    return app


def _after(settings: Settings, background: Background) -> After | None:
    """Drafts beside the predictions, where these are wanted."""
    if settings.write != DRAFTS:
        return None
    studio = Studio(settings.studio_url, settings.studio_token)
    return lambda project, predictions: background.later(write_drafts, studio, project, predictions)
