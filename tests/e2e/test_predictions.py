"""From a task in a real Label Studio to a stored rectangle with a label and a score."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.demo.photos import Photo, photos
from backend.demo.studio_api import StudioApi

from .project import NewProject

BY_FILE = {photo.file: photo for photo in photos()}
CAT, KOALA, PANDA, MACAW = (BY_FILE[name] for name in ("cat.jpg", "koala.jpg", "panda.jpg", "macaw.jpg"))


def size_of(photo: Photo) -> tuple[int, int]:
    with Image.open(photo.path) as image:
        return image.size


def assert_good(
    prediction: dict[str, Any], photo: Photo, version: str, *, size: tuple[int, int] | None = None
) -> None:
    """One rectangle of the photo's own label inside the photo, with a score and the running version."""
    assert prediction["model_version"] == version
    [region] = prediction["result"]
    assert region["type"] == "rectanglelabels"
    assert (region["from_name"], region["to_name"]) == ("label", "image")
    value = region["value"]
    assert value["rectanglelabels"] == [photo.label]
    width, height = size or size_of(photo)
    assert (region["original_width"], region["original_height"]) == (width, height)
    assert region["image_rotation"] == 0
    assert value["rotation"] == 0
    assert 0 <= value["x"] < value["x"] + value["width"] <= 100.0001
    assert 0 <= value["y"] < value["y"] + value["height"] <= 100.0001
    # A box around the object, neither a speck nor the whole photo.
    assert 2 < value["width"] * value["height"] / 100 < 99
    assert 0 < prediction["score"] <= 1
    assert prediction["score"] == pytest.approx(region["score"])


def test_uploads_get_boxes(new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    tasks = studio.upload(project.id, [CAT.path, KOALA.path, PANDA.path])
    project.retrieve()
    stored = project.wait_for(tasks)
    for task, photo in zip(tasks, (CAT, KOALA, PANDA), strict=True):
        [prediction] = stored[task]
        assert_good(prediction, photo, project.version)


def test_opening_a_task_shows_its_box_at_once(new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    [task] = studio.upload(project.id, [PANDA.path])
    assert project.predictions() == {}
    [prediction] = studio.task(task)["predictions"]
    assert_good(prediction, PANDA, project.version)
    [again] = studio.task(task)["predictions"]
    assert again["id"] == prediction["id"]


def test_next_task_comes_with_its_box(new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    [task] = studio.upload(project.id, [KOALA.path])
    shown = studio.next_task(project.id)
    assert shown["id"] == task
    assert_good(shown["predictions"][0], KOALA, project.version)


def test_data_uris(new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    uri = "data:image/jpeg;base64," + base64.b64encode(CAT.path.read_bytes()).decode()
    [task] = studio.import_tasks(project.id, [{"image": uri}])
    project.retrieve()
    assert_good(project.wait_for([task])[task][0], CAT, project.version)


def test_web_addresses(new_project: NewProject, studio: StudioApi, image_server: str) -> None:
    project = new_project()
    tasks = studio.import_tasks(project.id, [{"image": f"{image_server}/{photo.file}"} for photo in (CAT, MACAW)])
    project.retrieve()
    stored = project.wait_for(tasks)
    for task, photo in zip(tasks, (CAT, MACAW), strict=True):
        assert_good(stored[task][0], photo, project.version)


def test_local_files(new_project: NewProject, studio: StudioApi, local_files: Path) -> None:
    folder = local_files / "pictures of animals"
    folder.mkdir()
    for photo in (KOALA, PANDA):
        shutil.copy(photo.path, folder)
    project = new_project()
    studio.add_local_files(project.id, folder)
    tasks = studio.tasks(project.id)
    assert len(tasks) == 2
    project.retrieve()
    stored = project.wait_for([task["id"] for task in tasks])
    for task in tasks:
        address = task["data"]["image"]
        assert "/data/local-files/?d=" in address
        photo = BY_FILE[address.rsplit("/", 1)[-1]]
        assert_good(stored[task["id"]][0], photo, project.version)


def test_photo_that_lies_on_its_side(new_project: NewProject, studio: StudioApi, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90° to see it upright
    file = tmp_path / "panda.jpg"
    with Image.open(PANDA.path) as upright:
        upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif, quality=95)
    project = new_project()
    [task] = studio.upload(project.id, [file])
    [prediction] = studio.task(task)["predictions"]
    assert_good(prediction, PANDA, project.version, size=size_of(PANDA))


def test_truncated_photo_costs_only_itself(new_project: NewProject, studio: StudioApi, tmp_path: Path) -> None:
    data = CAT.path.read_bytes()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(data[: len(data) // 3])
    project = new_project()
    tasks = studio.upload(project.id, [KOALA.path, broken, PANDA.path])
    project.retrieve()
    stored = project.wait_for([tasks[0], tasks[2]])
    assert_good(stored[tasks[0]][0], KOALA, project.version)
    assert_good(stored[tasks[2]][0], PANDA, project.version)
    # Asked for alone, which waits for its outcome: there is none to store.
    assert studio.task(tasks[1])["predictions"] == []
    assert tasks[1] not in project.predictions()


def test_rectangle_with_labels_apart(new_project: NewProject, studio: StudioApi) -> None:
    project = new_project(
        """<View><Image name="photo" value="$image"/><Rectangle name="box" toName="photo"/>
        <Labels name="what" toName="photo"><Label value="Koala"/><Label value="Giant panda"/></Labels></View>"""
    )
    [task] = studio.upload(project.id, [PANDA.path])
    [prediction] = studio.task(task)["predictions"]
    shapes = {region["type"]: region for region in prediction["result"]}
    assert set(shapes) == {"rectangle", "labels"}
    assert shapes["rectangle"]["id"] == shapes["labels"]["id"]
    assert shapes["labels"]["value"]["labels"] == ["Giant panda"]
    assert (shapes["rectangle"]["from_name"], shapes["labels"]["from_name"]) == ("box", "what")


def test_score_reaches_the_data_manager(new_project: NewProject, studio: StudioApi) -> None:
    project = new_project()
    tasks = studio.upload(project.id, [CAT.path, PANDA.path])
    project.retrieve()
    stored = project.wait_for(tasks)
    listed = studio.call("GET", "/api/tasks/", params={"project": project.id, "fields": "all"})["tasks"]
    shown = {task["id"]: task["predictions_score"] for task in listed}
    assert shown == {task: pytest.approx(stored[task][0]["score"]) for task in tasks}


def test_demo_photos_all_get_their_own_label(new_project: NewProject, studio: StudioApi) -> None:
    """More tasks than anybody waits for: Label Studio is answered at once, and the boxes are pushed when ready."""
    project = new_project()
    shipped = photos()
    tasks = studio.upload(project.id, [photo.path for photo in shipped])
    project.retrieve()
    stored = project.wait_for(tasks)
    for task, photo in zip(tasks, shipped, strict=True):
        [prediction] = stored[task]
        assert_good(prediction, photo, project.version)
    project.retrieve()
    assert {task: len(found) for task, found in project.predictions().items()} == dict.fromkeys(tasks, 1)
