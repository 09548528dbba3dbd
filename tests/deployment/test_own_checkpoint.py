"""A checkpoint of one's own, with classes of one's own: the settings of README's recipe, on a real worker."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import torch
from torchvision.models import resnet18

from backend.cli.worker import Start, load
from backend.demo.photos import photos
from backend.settings import Settings
from worker.captum_engine import CaptumAttributor
from worker.images import decode

from .processes import PATIENCE, ask, deployment, until

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Left-handed widget"/><Label value="Screw"/></RectangleLabels></View>'
)


def checkpoint(folder: Path) -> dict[str, str]:
    """Weights and class names in files, and the settings that name them."""
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=3).state_dict(), folder / "mine.pth")
    (folder / "mine.txt").write_text("left-handed widget\nright-handed widget\nscrew\n")
    return {
        "BOXLIFT_NETWORK": "resnet18",
        "BOXLIFT_WEIGHTS": str(folder / "mine.pth"),
        "BOXLIFT_CLASSES": str(folder / "mine.txt"),
    }


def test_worker_takes_captum_where_it_is_asked_to(tmp_path: Path) -> None:
    """The same version and boxes, by other code."""
    found = []
    for engine in ("boxlift", "captum"):
        settings = Settings.from_env(
            {
                **checkpoint(tmp_path),
                "BOXLIFT_ENGINE": engine,
                "BOXLIFT_PRECISION": "float32",
            }
        )
        localizer = load(Start(settings, "cpu", "", burst=False, batch=2, loaders=1))
        assert isinstance(localizer._attribute, CaptumAttributor) == (engine == "captum")
        photo = decode(photos()[0].path.read_bytes())
        found.append((localizer.version, localizer.localize([photo])[0]))
    (ours, [our]), (theirs, [their]) = found
    assert ours == theirs
    assert our.box == pytest.approx(their.box, abs=0.01)  # pixels


def test_own_weights_and_classes(tmp_path: Path) -> None:
    photo = photos()[0].path
    settings = {
        **checkpoint(tmp_path),
        "BOXLIFT_IMAGE_ROOTS": str(photo.parent),
        "BOXLIFT_ANSWER_SECONDS": "60",
    }
    with deployment(tmp_path) as made:
        made.worker(**settings)
        _, url, _ = made.backend(**settings)
        until(lambda: ask(url, "/ready").status_code == 200, "the worker")
        setup = httpx.post(f"{url}/setup", json={"schema": CONFIG}, timeout=PATIENCE, trust_env=False).json()
        assert setup["model_version"].startswith("boxlift-resnet18-")
        assert "unreachable" not in setup
        task = {"id": 1, "data": {"image": str(photo)}}
        body = {"tasks": [task], "project": "5.1", "label_config": CONFIG, "params": {}}
        answer = httpx.post(f"{url}/predict", json=body, timeout=PATIENCE, trust_env=False).json()
        [region] = answer["results"][0]["result"]
        assert region["value"]["rectanglelabels"][0] in ("Left-handed widget", "Screw")
