"""The review loop as a person goes through it, by clicking; its pictures are those of the README."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.demo.photos import label_config, photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi
from worker.contract import Box

from .browser import Page, open_page
from .drawing import ARTIFACTS, fractions
from .project import Project
from .test_integration import boxlift

ANIMALS = ("panda.jpg", "koala.jpg", "cat.jpg", "macaw.jpg", "owl.jpg")
OWL: Box = (0.52, 0.195, 0.79, 0.955)
"""Where it is in its photo, as a person sees it."""
TAB = "Boxlift: doubtful first"
SHOWN = ("tasks:id", "tasks:predictions_score", "tasks:predictions_model_versions", "tasks:data.image")

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(stack.studio.url, stack.studio.login, tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_list_draft_correction_submission(page: Page, stack: Stack, studio: StudioApi) -> None:
    number = studio.create_project("Animals", label_config())
    report = boxlift(stack, "connect", "--project", str(number), "--url", stack.backend_url)
    project = Project(stack, studio, number, report["version"])
    tasks = studio.upload(number, [photo.path for photo in photos() if photo.file in ANIMALS])
    project.retrieve()
    stored = project.wait_for(tasks)
    hide_columns(studio, number)

    page.open_tab(number, TAB)
    doubtful = sorted(tasks, key=lambda task: stored[task][0]["score"])
    assert page.task_rows() == doubtful
    keep(page, "review-1-list")

    [draft] = page.open_row(0)
    value = stored[doubtful[0]][0]["result"][0]["value"]
    assert fractions(draft) == pytest.approx(fractions(value), abs=1e-6)
    keep(page, "review-2-draft")

    # The owl is the most doubtful one: take hold of the box, pull one corner in, and the opposite one out.
    assert draft["label"] == "Owl"
    x0, y0, x1, y1 = fractions(draft)
    page.click_photo(((x0 + x1) / 2, (y0 + y1) / 2))
    page.drag_photo((x0, y0), OWL[:2])
    page.drag_photo((x1, y1), OWL[2:])
    [corrected] = page.regions()
    assert fractions(corrected) == pytest.approx(OWL, abs=0.01)
    keep(page, "review-3-corrected")

    page.submit()
    page.settle()
    keep(page, "review-4-submitted")
    [annotation] = project.annotations(doubtful[0])
    [item] = annotation["result"]
    assert item["origin"] == "prediction-changed"
    assert annotation["parent_prediction"] == stored[doubtful[0]][0]["id"]
    assert fractions(item["value"]) == pytest.approx(fractions(corrected), abs=1e-4)
    # What is done leaves the list of what is left to do.
    page.open_tab(number, TAB)
    assert page.task_rows() == doubtful[1:]


def hide_columns(studio: StudioApi, project: int) -> None:
    """Show a few columns of the tab, so that its picture can be read."""
    columns = [
        column["id"] for column in studio.call("GET", "/api/dm/columns", params={"project": project})["columns"]
    ]
    tabs = studio.call("GET", "/api/dm/views", params={"project": project})
    [tab] = [tab for tab in tabs if tab["data"]["title"] == TAB]
    hidden = [f"tasks:{column}" for column in columns if f"tasks:{column}" not in SHOWN]
    data = tab["data"] | {"hiddenColumns": {"explore": hidden, "labeling": hidden}}
    studio.call("PATCH", f"/api/dm/views/{tab['id']}", params={"project": project}, json={"data": data})


def keep(page: Page, name: str) -> None:
    """Leave a picture in artifacts/."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot().save(ARTIFACTS / f"{name}.png", optimize=True)
