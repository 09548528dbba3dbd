"""A checkpoint of one's own, with classes of one's own: the settings of README's recipe, on a real worker."""

from __future__ import annotations

from pathlib import Path

import httpx
import torch
from torchvision.models import resnet18

from backend.demo.photos import photos

from .processes import PATIENCE, ask, deployment, until

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Left-handed widget"/><Label value="Screw"/></RectangleLabels></View>'
)


def test_own_weights_and_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "mine.pth")
    (tmp_path / "mine.txt").write_text("left-handed widget\nright-handed widget\nscrew\n")
    photo = photos()[0].path
    settings = {
        "BOXLIFT_NETWORK": "resnet18",
        "BOXLIFT_WEIGHTS": str(tmp_path / "mine.pth"),
        "BOXLIFT_CLASSES": str(tmp_path / "mine.txt"),
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
