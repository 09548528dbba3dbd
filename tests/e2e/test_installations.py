"""A Label Studio under a path behind a reverse proxy, with legacy tokens, local files and cloud storage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backend.demo.photos import label_config, photos
from backend.demo.processes import free_port
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from backend.demo.studio_server import StudioServer

from .conftest import NETWORK
from .neighbours import bucket, reverse_proxy, serving
from .project import Project
from .test_doctor import doctor
from .test_integration import boxlift, until

PREFIX = "/label-studio"
LEGACY = "0123456789abcdef0123456789abcdef01234567"
PHOTOS = {photo.file: photo for photo in photos()}
ANIMALS = {"panda.jpg": "Panda", "koala.jpg": "Koala"}

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


class Behind(StudioServer):
    """Label Studio that people and programs reach through a proxy, under a path; it still takes legacy tokens."""

    def __init__(self, folder: Path, proxy_port: int, local_files: Path) -> None:
        super().__init__(folder, local_files=local_files)
        self.direct = self.url
        self.url = f"http://127.0.0.1:{proxy_port}{PREFIX}"

    def _environment(self) -> dict[str, str]:
        legacy = {"LABEL_STUDIO_USER_TOKEN": LEGACY, "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true"}
        return super()._environment() | legacy


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 server with the bucket `animals`."""
    folder = tmp_path_factory.mktemp("bucket")
    for name in ANIMALS:
        shutil.copy(PHOTOS[name].path, folder)
    with serving(bucket("animals", folder)) as url:
        yield url


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, cloud: str, files: Path) -> Iterator[Stack]:
    """Worker and backend know nothing but the address with its path, and a legacy token."""
    settings = {
        "BOXLIFT_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "BOXLIFT_IMAGE_HOSTS": cloud.removeprefix("http://"),
        "BOXLIFT_ANSWER_SECONDS": "60",
        "LABEL_STUDIO_API_KEY": LEGACY,
    }
    folder, port = tmp_path_factory.mktemp("installation"), free_port()
    with ExitStack() as ends, Stack(folder, settings=settings) as stack:
        stack.studio = studio = Behind(folder / "behind", port, files)
        ends.enter_context(reverse_proxy(PREFIX, studio.direct, port))
        stack.start(NETWORK)
        yield stack


@pytest.fixture(scope="module")
def api(installation: Stack) -> Iterator[StudioApi]:
    with installation.studio_api() as api:
        yield api


@pytest.fixture
def project(installation: Stack, api: StudioApi, request: pytest.FixtureRequest) -> Project:
    """A project of the test's own, connected by the command."""
    number = api.create_project(str(request.node.name)[:50], label_config())
    report = boxlift(installation, "connect", "--project", str(number), "--url", installation.backend_url)
    assert report["warnings"] == []
    return Project(installation, api, number, report["version"])


def assert_boxes(project: Project) -> None:
    """All tasks get the box of the animal that their file's name says."""
    tasks = project.studio.tasks(project.id)
    assert len(tasks) == len(ANIMALS)
    project.retrieve()
    stored = project.wait_for([task["id"] for task in tasks])
    labels = {
        stored[task["id"]][0]["result"][0]["value"]["rectanglelabels"][0]: task["data"]["image"] for task in tasks
    }
    assert set(labels) == set(ANIMALS.values()), labels


def test_uploads(project: Project, installation: Stack) -> None:
    project.studio.upload(project.id, [PHOTOS[name].path for name in ANIMALS])
    assert_boxes(project)
    # The doctor finds its way, too, and says which kind of token it is.
    code, checks, output = doctor(installation.environment() | {"BOXLIFT_NETWORK": NETWORK}, project.id)
    assert code == 0, output
    assert "legacy token of" in checks["token"][0]["text"]
    assert [check["state"] for check in checks[f"project {project.id}"]] == ["ok"]


def test_an_address_without_its_path_is_named(project: Project, installation: Stack) -> None:
    environment = installation.environment() | {"BOXLIFT_NETWORK": NETWORK}
    environment["LABEL_STUDIO_URL"] = environment["LABEL_STUDIO_URL"].removesuffix(PREFIX)
    code, checks, _ = doctor(environment, project.id)
    assert code == 1
    assert "set LABEL_STUDIO_URL" in checks["label studio"][0]["advice"]


def test_opening_a_task(project: Project) -> None:
    [task] = project.studio.upload(project.id, [PHOTOS["panda.jpg"].path])
    [prediction] = project.studio.task(task)["predictions"]
    assert prediction["result"][0]["value"]["rectanglelabels"] == ["Panda"]


def test_local_files(project: Project, files: Path) -> None:
    folder = files / "some animals"
    folder.mkdir()
    for name in ANIMALS:
        shutil.copy(PHOTOS[name].path, folder)
    project.studio.add_local_files(project.id, folder)
    assert_boxes(project)


def add_bucket(project: Project, cloud: str, *, presign: bool) -> None:
    """Connect the bucket as cloud storage, and make a task of each object."""
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    body = {"project": project.id, "bucket": "animals", "s3_endpoint": cloud, "region_name": "us-east-1", **keys}
    body |= {"use_blob_urls": True, "presign": presign, "regex_filter": r".*\.jpg"}
    storage = project.studio.call("POST", "/api/storages/s3", json=body)
    project.studio.call("POST", f"/api/storages/s3/{storage['id']}/sync", json={})
    assert len(project.studio.tasks(project.id)) == len(ANIMALS)


@pytest.mark.parametrize("presign", [True, False], ids=["redirected", "through Label Studio"])
def test_cloud_storage(presign: bool, project: Project, cloud: str, installation: Stack) -> None:
    add_bucket(project, cloud, presign=presign)
    assert_boxes(project)
    code, _, output = doctor(installation.environment() | {"BOXLIFT_NETWORK": NETWORK}, project.id)
    assert code == 0, output


def test_a_bucket_on_a_host_that_nobody_allowed(project: Project, installation: Stack, tmp_path: Path) -> None:
    """Label Studio redirects there, and would be right to: the worker still looks where it is sent."""
    for name in ANIMALS:
        shutil.copy(PHOTOS[name].path, tmp_path)
    with serving(bucket("animals", tmp_path)) as elsewhere:
        add_bucket(project, elsewhere, presign=True)
        project.retrieve()
        until(lambda: any("BOXLIFT_IMAGE_HOSTS" in reason for reason in installation.failures()))
        assert project.predictions() == {}
        code, checks, _ = doctor(installation.environment() | {"BOXLIFT_NETWORK": NETWORK}, project.id)
    assert code == 1
    assert "BOXLIFT_IMAGE_HOSTS" in checks[f"project {project.id}"][0]["advice"]
