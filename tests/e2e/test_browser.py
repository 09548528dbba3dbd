"""What a person sees: the draft box, drawn over the photo on Label Studio's labelling page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.demo.photos import Photo, photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi

from .browser import Page, open_page
from .project import NewProject

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
PANDA: Photo = next(photo for photo in photos() if photo.file == "panda.jpg")

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(stack.studio.url, stack.studio.login, tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_box_is_drawn_over_the_photo(page: Page, new_project: NewProject, studio: StudioApi) -> None:
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

    with_box = page.screenshot()
    ARTIFACTS.mkdir(exist_ok=True)
    with_box.save(ARTIFACTS / "labelling.png", optimize=True)
    left, top, width, height = page.photo()
    page.hide_regions()
    without = page.screenshot()

    # Inside the photo, hiding the region changes exactly the pixels of its box.
    photo = (round(left), round(top), round(left + width), round(top + height))
    changed = np.any(np.asarray(with_box.crop(photo)) != np.asarray(without.crop(photo)), axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows.size, "no pixel of the photo changed when its box was hidden"
    drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    expected = (
        value["x"] / 100 * width,
        value["y"] / 100 * height,
        (value["x"] + value["width"]) / 100 * width,
        (value["y"] + value["height"]) / 100 * height,
    )
    assert drawn == pytest.approx(expected, abs=4), "the box is not where the prediction says"
    # Its outline is closed: along all four sides nearly every pixel is covered.
    x0, y0, x1, y1 = drawn
    across = (changed[y0 : y0 + 3, x0:x1], changed[y1 - 3 : y1, x0:x1])
    upright = (changed[y0:y1, x0 : x0 + 3], changed[y0:y1, x1 - 3 : x1])
    assert min(side.any(axis=0).mean() for side in across) > 0.9
    assert min(side.any(axis=1).mean() for side in upright) > 0.9
