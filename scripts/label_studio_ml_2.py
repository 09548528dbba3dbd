"""Try BoxliftModel under the server of label-studio-ml 2.x, which no package index has: out of its repository.

    git clone https://github.com/HumanSignal/label-studio-ml-backend
    pip install --no-deps --target ml2 "colorama~=0.4" "semver~=3.0"
    cp -r label-studio-ml-backend/label_studio_ml ml2
    python scripts/label_studio_ml_2.py ml2

Its `requirements.txt` asks for label_studio_sdk out of git; the one that Boxlift has serves. The tests' stand-in
takes the place of workers: what is tried is the protocol. Ends with an AssertionError where something is wrong.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/></RectangleLabels></View>'
)
CLICK = {"type": "keypointlabels", "to_name": "image", "value": {"x": 30, "y": 40, "keypointlabels": ["Dog"]}}


def main(folder: str) -> None:
    """`folder` holds label_studio_ml and what it needs besides."""
    os.environ["MODEL_DIR"] = tempfile.mkdtemp()  # where it keeps what models set
    sys.path[:0] = [folder, str(ROOT), str(ROOT / "tests/backend")]
    warnings.simplefilter("ignore")
    import backend.model as ours  # before its base class, which would import torch

    assert "torch" not in sys.modules
    import label_studio_ml
    from desk import VERSION, Desk
    from label_studio_ml.api import init_app
    from label_studio_sdk.label_interface.interface import LabelInterface

    from backend.labelling.imagenet import taxonomy
    from backend.predictor import Predictor
    from backend.settings import Settings
    from worker.contract import Model

    assert ours._PER_PROJECT, f"{label_studio_ml.__version__} is not 2.x"
    desk = Desk(Model(VERSION, "vgg16", taxonomy().names))
    predictor = Predictor(Settings(), desk)
    ours._environment_predictor = lambda: predictor  # type: ignore[assignment]
    client = init_app(model_class=ours.BoxliftModel).test_client()

    def predict(project: int, config: str, context: object = None) -> list[Any]:
        tasks = [{"id": task, "project": project, "data": {"image": f"http://h/{task}.jpg"}} for task in (7, 8)]
        params = {"login": None, "password": None, "context": context}
        body = {"tasks": tasks, "project": f"{project}.1795471504", "label_config": config, "params": params}
        answer = client.post("/predict", json=body)
        assert answer.status_code == 200, answer.text
        results = answer.get_json()["results"]
        assert len(results) == len(tasks)
        return list(results)

    assert client.get("/health").get_json()["status"] == "UP"
    for extra in (None, {"threshold": 0.3}, "text"):
        setup = client.post("/setup", json={"project": "5.1", "schema": CONFIG, "extra_params": extra})
        assert setup.get_json() == {"model_version": VERSION}, setup.text
    for project, config, label in (
        (5, CONFIG, "Dog"),
        (6, CONFIG.replace("Dog", "Cat"), "Cat"),
        (5, CONFIG, "Dog"),
    ):
        for entry in predict(project, config):
            assert LabelInterface(config).validate_prediction(entry, return_errors=True) == []
            assert entry["model_version"] == VERSION
            assert entry["result"][0]["value"]["rectanglelabels"] == [label]
    assert predict(5, CONFIG, {"result": [CLICK]})[0]["result"][0]["value"]["rectanglelabels"] == ["Dog"]
    desk.ready = False
    assert predict(5, CONFIG) == [[], []]
    for action in ("START_TRAINING", "ANNOTATION_CREATED"):
        event = {"action": action, "project": {"id": 5, "label_config": CONFIG}}
        assert client.post("/webhook", json=event).status_code == 201
    assert [project for project, _ in desk.wishes] == [5]
    print(f"label-studio-ml {label_studio_ml.__version__}: setup, predict, clicks and events are right")


if __name__ == "__main__":
    main(sys.argv[1])
