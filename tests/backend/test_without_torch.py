"""The backend needs no torch, and does not load it where it is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

IMPORTS = (
    "import backend.app, backend.model, backend.cli, backend.cli.serve, backend.cli.labels, backend.studio, "
    "backend.cli.preannotate, backend.bulk.project, backend.bulk.files, backend.cli.review, backend.review.page"
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_it_works_where_torch_is_missing() -> None:
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "captum", "timm", "numpy.core.torch"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
{IMPORTS}
from backend.settings import Settings
client = backend.app.create_app(Settings(redis_url="redis://127.0.0.1:1/0")).test_client()
assert client.get("/health").status_code == 200
assert client.post("/predict", json={{"tasks": [{{"id": 1}}]}}).get_json() == {{"results": [[]]}}
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_it_leaves_an_installed_torch_alone() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    demo = "import backend.demo.run as demo; demo.choose_network('efficientnet_lite0', None, None)"
    code = f"import sys; {IMPORTS}; {demo}; assert 'torch' not in sys.modules, 'torch was imported'"
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_a_torch_that_is_loaded_already_stays_loaded() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    code = f"""
import sys, torch, multiprocessing
{IMPORTS}
assert sys.modules["torch"] is torch
assert multiprocessing.get_start_method(allow_none=True) is None, "the start method was changed"
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
