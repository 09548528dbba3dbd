"""Label Studio asks BoxliftModel under the own server of label-studio-ml, as its users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.demo.photos import label_config, photos
from backend.demo.processes import free_port
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi

from .project import Project
from .test_integration import until

SERVER = """
import sys, warnings
warnings.simplefilter("ignore")
from backend.model import BoxliftModel
from label_studio_ml.api import init_app
app = init_app(model_class=BoxliftModel, model_dir=sys.argv[2])
app.run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
"""
PHOTOS = {photo.file: photo for photo in photos()}


@pytest.fixture
def server(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """Its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port), str(tmp_path)],
            env=os.environ | stack.environment(),
            stdout=output,
            stderr=output,
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_label_studio_gets_boxes_from_it(server: str, stack: Stack, studio: StudioApi, version: str) -> None:
    number = studio.create_project("label-studio-ml's own server", label_config())
    connection = studio.connect(number, server, version, is_interactive=True)
    # This is what 1.0.9's server answers for every model that it has not trained; predictions say what they are.
    assert connection["model_version"] == "INITIAL"
    project = Project(stack, studio, number, version)
    tasks = studio.upload(number, [PHOTOS[name].path for name in ("panda.jpg", "koala.jpg")])
    # Opening a task asks for its box; that server makes its model anew every time, which may take too long once.
    [shown, *_] = until(lambda: studio.task(tasks[0])["predictions"])
    project.retrieve()
    stored = project.wait_for(tasks)
    assert [stored[task][0]["result"][0]["value"]["rectanglelabels"] for task in tasks] == [["Panda"], ["Koala"]]
    assert {item["model_version"] for found in stored.values() for item in found} == {version}
    value = shown["result"][0]["value"]
    rough = {name: value[name] for name in ("x", "y", "width", "height")} | {"rectanglelabels": ["Panda"]}
    item = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": rough}
    body = {"task": tasks[0], "context": {"result": [item]}}
    answer = studio.call("POST", f"/api/ml/{connection['id']}/interactive-annotating", json=body)
    assert answer["data"]["result"][0]["value"]["rectanglelabels"] == ["Panda"]
