"""Work in the background: what was finished before goes to Label Studio too, since nobody answers with it."""

from __future__ import annotations

from desk import VERSION, Desk

from backend.labelling.imagenet import taxonomy
from backend.predictor import Predictor
from backend.settings import Settings
from worker.contract import Model

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Dog"/></RectangleLabels></View>'
)


def test_finished_results_are_handed_over() -> None:
    desk = Desk(Model(VERSION, "vgg16", taxonomy().names))
    tasks = [{"id": number, "data": {"image": f"http://h/{number}.jpg"}} for number in (3, 4)]
    assert Predictor(Settings(), desk).enqueue(7, tasks, CONFIG) == 2
    assert desk.handed_over == [3, 4]
    desk.handed_over.clear()
    desk.ready = False
    assert Predictor(Settings(), desk).enqueue(7, tasks, CONFIG) == 2
    assert desk.handed_over == []
