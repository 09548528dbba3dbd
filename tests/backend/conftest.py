"""Fixtures of the backend's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from desk import VERSION, Desk
from flask import Flask
from flask.testing import FlaskClient
from recorded_studio import TOKEN, RecordedStudio

from backend.app import create_app
from backend.labelling.imagenet import taxonomy
from backend.settings import Settings
from backend.studio import Studio
from worker.contract import Model


@pytest.fixture
def model() -> Model:
    """What workers announce: ImageNet's classes."""
    return Model(VERSION, "vgg16", taxonomy().names)


@pytest.fixture
def desk(model: Model) -> Desk:
    """A queue whose worker answers at once."""
    return Desk(model)


@pytest.fixture
def make_app(desk: Desk) -> Callable[..., Flask]:
    """Make the application on the desk, with any settings."""

    def make(**settings: Any) -> Flask:
        app = create_app(Settings(**settings), desk)
        app.testing = False  # as in production: errors are answered, not raised
        return app

    return make


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    """A client of the application with default settings."""
    return make_app().test_client()


@pytest.fixture
def studio(server: RecordedStudio) -> Iterator[Studio]:
    """Label Studio's API at the test's own server."""
    studio = Studio(server.url, TOKEN)
    yield studio
    studio.close()
