"""Real parts, once for all end-to-end tests: Redis, a worker process, the backend, Label Studio, a web server."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backend.demo.photos import FOLDER, label_config
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi

from .project import NewProject, Project

NETWORK = "efficientnet_lite0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder use the real Label Studio."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("studio")
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def image_server() -> Iterator[str]:
    """Address of a web server with the demo's photos, on the loopback interface; any site's pages may show them."""

    class Quiet(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Access-Control-Allow-Origin", "*")
            super().end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(FOLDER))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def local_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label Studio's root for local files."""
    return tmp_path_factory.mktemp("local-files")


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that workers may read photos from by their path."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, local_files: Path, image_root: Path, image_server: str
) -> Iterator[Stack]:
    """Everything, started and connected to each other."""
    settings = {
        "BOXLIFT_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),  # maps of other runs must not decide a test
        "BOXLIFT_IMAGE_ROOTS": str(image_root),
        "BOXLIFT_IMAGE_HOSTS": image_server.removeprefix("http://"),
        "BOXLIFT_ANSWER_SECONDS": "60",  # a busy machine must not turn a waited-for box into a late one
    }
    with Stack(tmp_path_factory.mktemp("stack"), local_files=local_files, settings=settings) as stack:
        stack.start(NETWORK)
        yield stack


@pytest.fixture(scope="session")
def version(stack: Stack) -> str:
    """The model version that the worker announces."""
    model = stack.model()
    assert model is not None
    return model.version


@pytest.fixture(scope="session")
def studio(stack: Stack) -> Iterator[StudioApi]:
    """Label Studio's API as its first user."""
    with stack.studio_api() as api:
        yield api


@pytest.fixture
def new_project(studio: StudioApi, stack: Stack, version: str, request: pytest.FixtureRequest) -> NewProject:
    """Makes a project with the demo's labels (or another config), and connects the backend."""

    def make(config: str | None = None, *, title: str = "", **settings: Any) -> Project:
        number = studio.create_project(title or str(request.node.name)[:50], config or label_config())
        studio.connect(number, stack.backend_url, version, **settings)
        return Project(stack, studio, number, version)

    return make
