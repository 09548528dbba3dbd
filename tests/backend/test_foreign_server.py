"""BoxliftModel under the own server of label-studio-ml 1.0.9, in a process of its own: it keeps global state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SERVER = r"""
import json, sys, warnings
sys.path.insert(0, sys.argv[1])
import backend.model as ours
assert "torch" not in sys.modules
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from label_studio_ml.api import init_app
from desk import VERSION, Desk
from backend.labelling.imagenet import taxonomy
from backend.predictor import Predictor
from backend.settings import Settings
from worker.contract import Model

desk = Desk(Model(VERSION, "vgg16", taxonomy().names))
ours._environment_predictor = lambda: Predictor(Settings.from_env(), desk)
app = init_app(model_class=ours.BoxliftModel, model_dir=sys.argv[2])
client = app.test_client()

CONFIG = ('<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
          '<Label value="Dog"/></RectangleLabels></View>')
task = {"id": 7, "project": 5, "data": {"image": "http://h/7.jpg"}, "annotations": [], "predictions": []}
predict = {"tasks": [task, task], "project": "5.1795471504", "label_config": CONFIG,
           "params": {"login": None, "password": None, "context": None}}

answers = {
    "health": client.get("/health"),
    "setup": client.post("/setup", json={"project": "5.1795471504", "schema": CONFIG, "hostname": "http://h",
                                         "access_token": "x", "extra_params": None}),
    "predict": client.post("/predict", json=predict),
    "interactive": client.post("/predict", json=predict | {"tasks": [task],
        "params": {"context": {"result": [{"type": "keypointlabels", "value": {"x": 1, "y": 2}}]}}}),
}
model = ours.BoxliftModel(label_config=CONFIG, train_output={"job_id": "1"}, hostname="http://h", access_token="x")
answers["fit"] = model.process_event("ANNOTATION_CREATED", {"project": {"id": 5}}, "1", {})
print(json.dumps({name: answer if isinstance(answer, dict) else [answer.status_code, answer.get_json()]
                  for name, answer in answers.items()}))
"""


def test_it_runs_under_the_packages_own_server(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(HERE), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"},
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers["health"][0] == 200
    assert answers["setup"][0] == 200
    status, predicted = answers["predict"]
    assert status == 200
    assert len(predicted["results"]) == 2
    for entry in predicted["results"]:
        assert entry["model_version"] == "boxlift-vgg16-0123456789ab"
        assert entry["result"][0]["value"]["rectanglelabels"] == ["Dog"]
    status, interactive = answers["interactive"]
    assert status == 200
    assert isinstance(interactive["results"][0]["result"], list)
    assert answers["fit"] == {"model_version": "boxlift-vgg16-0123456789ab"}
