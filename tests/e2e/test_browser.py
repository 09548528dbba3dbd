"""What a person sees and does: boxes over photos in Label Studio, retrieved or asked for by clicks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from label_studio_sdk.label_interface.interface import LabelInterface
from PIL import Image

from backend.demo.photos import Photo, photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from worker.contract import Box

from .browser import Page, open_page
from .drawing import assert_drawn, fractions, overlap
from .project import NewProject

PHOTOS = {photo.file: photo for photo in photos()}
PANDA, KOALA = PHOTOS["panda.jpg"], PHOTOS["koala.jpg"]
OBJECTS: dict[str, Box] = {"Panda": (0.205, 0.075, 0.832, 0.873), "Koala": (0.135, 0.238, 0.841, 0.858)}
"""Where the animals are in their photos, as a person sees it."""
LABELS = '<Label value="Panda" predicted_values="giant panda"/><Label value="Koala"/>'
SMART = (
    '<View><Image name="image" value="$image"/>'
    '<KeyPointLabels name="tag" toName="image" smart="true"><Label value="Panda" smart="true"/></KeyPointLabels>'
    f'<RectangleLabels name="label" toName="image" smart="true" strokeWidth="3">{LABELS}</RectangleLabels></View>'
)
PAGES = (
    '<View><Image name="image" valueList="$images"/>'
    f'<RectangleLabels name="label" toName="image" strokeWidth="3">{LABELS}</RectangleLabels></View>'
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(stack.studio.url, stack.studio.login, tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_opening_a_task_draws_its_box_over_the_photo(
    page: Page, new_project: NewProject, studio: StudioApi
) -> None:
    project = new_project(title="Animals")
    [task] = studio.upload(project.id, [PANDA.path])
    # Nobody has asked for predictions: opening the page does.
    [region] = page.open_task(project.id, task)
    [prediction] = project.predictions()[task]
    value = prediction["result"][0]["value"]
    assert region["label"] == "Panda"
    assert region["score"] == pytest.approx(prediction["score"], abs=1e-6)
    assert "Panda" in page.panel()
    assert f"{prediction['score']:.2f}" in page.panel()
    assert overlap(fractions(value), OBJECTS["Panda"]) > 0.5
    assert_drawn(page, value, "labelling.png")


def test_retrieved_predictions_are_drawn(page: Page, new_project: NewProject, studio: StudioApi) -> None:
    project = new_project(title="Retrieved")
    tasks = studio.upload(project.id, [PANDA.path, KOALA.path])
    page.retrieve_all(project.id)
    stored = project.wait_for(tasks)
    for task, label in zip(tasks, OBJECTS, strict=True):
        [region] = page.open_task(project.id, task)
        value = stored[task][0]["result"][0]["value"]
        assert region["label"] == label
        assert fractions(region) == pytest.approx(fractions(value), abs=1e-6)
        assert overlap(fractions(value), OBJECTS[label]) > 0.5
        assert_drawn(page, value, f"retrieved-{label.lower()}.png")


def test_smart_tools(page: Page, new_project: NewProject, studio: StudioApi) -> None:
    project = new_project(SMART, title="Smart", is_interactive=True)
    # Nothing is drawn before the click: this project's people ask for every box themselves.
    studio.call("PATCH", f"/api/projects/{project.id}/", json={"show_collab_predictions": False})
    [task] = studio.upload(project.id, [PANDA.path])
    assert page.open_task(project.id, task, empty=True) == []
    page.auto_annotate()

    page.smart_tool("key-point-tool")
    page.choose_label("Panda")
    page.click_photo((0.52, 0.45))
    [suggested] = page.suggestions()
    assert suggested["label"] == "Panda"
    assert overlap(fractions(suggested), OBJECTS["Panda"]) > 0.5
    page.accept_suggestions()
    [region] = page.regions()  # the box is there, the point is gone
    assert region["type"] == "rectangleregion"
    assert fractions(region) == pytest.approx(fractions(suggested), abs=1e-6)
    assert_drawn(page, region, "smart-keypoint.png")

    page.delete_regions()
    page.smart_tool("rectangle-tool")
    page.choose_label("Panda", control=1)
    rough: Box = (0.15, 0.02, 0.93, 0.95)
    page.drag_photo(rough[:2], rough[2:])
    [tightened] = page.suggestions()
    assert tightened["label"] == "Panda"
    assert overlap(fractions(tightened), OBJECTS["Panda"]) > max(0.5, overlap(rough, OBJECTS["Panda"]))
    page.accept_suggestions()
    [region] = page.regions()
    assert_drawn(page, region, "smart-rectangle.png")

    page.submit()
    [annotation] = project.annotations(task)
    [item] = annotation["result"]
    assert LabelInterface(SMART).validate_annotation(annotation)
    assert fractions(item["value"]) == pytest.approx(fractions(tightened), abs=1e-4)


@pytest.mark.parametrize("orientation", [6, 8, 3])
def test_a_photo_that_lies_on_its_side(
    orientation: int, page: Page, new_project: NewProject, studio: StudioApi, tmp_path: Path
) -> None:
    file = lying(PANDA, orientation, tmp_path)
    project = new_project(title=f"EXIF orientation {orientation}")
    [task] = studio.upload(project.id, [file])
    [region] = page.open_task(project.id, task)
    _, _, width, height = page.photo()
    with Image.open(PANDA.path) as upright:
        assert width / height == pytest.approx(upright.width / upright.height, rel=0.01)
    assert region["label"] == "Panda"
    assert overlap(fractions(region), OBJECTS["Panda"]) > 0.5
    assert_drawn(page, region, f"exif-{orientation}.png")


def lying(photo: Photo, orientation: int, folder: Path) -> Path:
    """The photo as a camera stores it that was held otherwise: pixels turned, and an EXIF tag that says so."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = folder / f"{orientation}-{photo.file}"
    with Image.open(photo.path) as upright:
        upright.transpose(turns[orientation]).save(file, exif=exif, quality=95)
    return file


def test_every_page_shows_its_own_box(
    page: Page, new_project: NewProject, studio: StudioApi, image_server: str
) -> None:
    project = new_project(PAGES, title="Pages")
    [task] = studio.import_tasks(project.id, [{"images": [f"{image_server}/{p.file}" for p in (PANDA, KOALA)]}])
    regions = page.open_task(project.id, task)
    assert [(region["page"], region["label"]) for region in regions] == [(0, "Panda"), (1, "Koala")]
    for region in regions:
        if region["page"]:
            page.next_page()
        assert overlap(fractions(region), OBJECTS[str(region["label"])]) > 0.5
        assert_drawn(page, region, f"page-{region['page']}.png")
