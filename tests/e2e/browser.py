"""A headless Chromium that looks at Label Studio as a person does."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from backend.demo.studio_server import Login

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--window-size=1400,900",
    "--force-device-scale-factor=1",
)
STORE = "const store = window.Htx && Htx.annotationStore && Htx.annotationStore.selected;"
REGION = """r => ({type: r.type, label: r.labels[0], score: r.score, page: r.item_index,
    x: r.x, y: r.y, width: r.width, height: r.height})"""
REGIONS = f"{STORE} return store ? store.regionStore.regions.map({REGION}) : [];"
SUGGESTIONS = f"{STORE} return [...store.suggestions.values()].map({REGION});"
PHOTO = """
    const loaded = [...document.querySelectorAll("img")].filter(i => i.complete && i.naturalWidth);
    const shown = loaded.map(i => i.getBoundingClientRect());
    const box = shown.sort((a, b) => b.width * b.height - a.width * a.height)[0];
    return box ? [box.x, box.y, box.width, box.height] : [0, 0, 0, 0];
"""
UNSELECT = "Htx.annotationStore.selected.unselectAll();"
HIDE = "Htx.annotationStore.selected.regionStore.regions.forEach(r => r.toggleHidden());"
PAGE = f"{STORE} return store.objects[0].currentImage || 0;"
Region = dict[str, Any]
"""type, label, score, page, and x, y, width, height in percent."""
Point = tuple[float, float]
"""Of the photo, from 0 to 1."""


@dataclass(frozen=True)
class Page:
    """Label Studio in a browser, logged in."""

    driver: webdriver.Chrome
    url: str

    def open_task(self, project: int, task: int, *, empty: bool = False) -> list[Region]:
        """Open a task's labelling page, wait for its photo and its regions (for none if it is to be `empty`)."""
        self.driver.get(f"{self.url}/projects/{project}/data?task={task}")
        self.wait(lambda: self.photo()[2] > 200)
        if not empty:
            self.wait(self.regions)
        self.settle()
        return self.regions()

    def regions(self) -> list[Region]:
        """The regions of the annotation that is shown, out of Label Studio's own store."""
        return list(self.driver.execute_script(REGIONS))

    def suggestions(self) -> list[Region]:
        """Waits for what smart tools suggest."""
        return list(self.wait(lambda: self.driver.execute_script(SUGGESTIONS)))

    def accept_suggestions(self) -> None:
        """The button with the tick."""
        self.find(".lsf-auto-accept__action_type_accept").click()
        self.wait(lambda: not self.driver.execute_script(SUGGESTIONS))
        self.settle()

    def auto_annotate(self) -> None:
        """Switch "Auto-Annotation" on: smart tools appear."""
        self.driver.find_element(By.CSS_SELECTOR, "[data-testid=bottombar-auto-annotation-toggle]").click()
        self.find("button.lsf-tool_smart")

    def smart_tool(self, name: str) -> None:
        """Choose `key-point-tool` or `rectangle-tool` out of the smart tools."""
        self.find("button.lsf-tool_smart").click()
        self.find(f"button.lsf-tool_smart[aria-label={name}]").click()

    def choose_label(self, label: str, control: int = 0) -> None:
        """Click a label, of the first control that offers it or of a later one."""
        labels = self.driver.find_elements(By.CSS_SELECTOR, ".lsf-label")
        [one for one in labels if one.text.split("\n")[0] == label][control].click()

    def click_photo(self, at: Point) -> None:
        """Click on a place of the photo."""
        self._pointer(at)

    def drag_photo(self, start: Point, end: Point) -> None:
        """Draw from one place of the photo to another."""
        self._pointer(start, end)

    def _pointer(self, start: Point, end: Point | None = None) -> None:
        chain = ActionChains(self.driver)
        pointer = chain.w3c_actions.pointer_action
        pointer.move_to_location(*self._pixel(start)).pointer_down()
        for step in range(1, 6 if end else 0):  # as a hand does: on the way, too
            x, y = (a + (b - a) * step / 5 for a, b in zip(start, end or start, strict=True))
            pointer.move_to_location(*self._pixel((x, y)))
        pointer.pointer_up()
        chain.perform()

    def _pixel(self, at: Point) -> tuple[int, int]:
        left, top, width, height = self.photo()
        return round(left + at[0] * width), round(top + at[1] * height)

    def find(self, selector: str) -> WebElement:
        """The first such element that a person can see, once there is one."""

        def shown() -> WebElement | None:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return next((one for one in found if one.is_displayed()), None)

        element: WebElement = self.wait(shown)
        return element

    def panel(self) -> str:
        """Text of the list of regions."""
        return self.driver.find_element(By.CSS_SELECTOR, ".lsf-outliner").text

    def photo(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the photo on the page, in pixels."""
        x, y, width, height = self.driver.execute_script(PHOTO)
        return float(x), float(y), float(width), float(height)

    def unselect(self) -> None:
        """As a click beside all regions: none shows its handles any more."""
        self.driver.execute_script(UNSELECT)
        self.settle()

    def delete_regions(self) -> None:
        """The button that takes everything back."""
        self.find("[aria-label=Reset]").click()
        self.wait(lambda: not self.regions())

    def submit(self) -> None:
        """Press "Submit", and wait until Label Studio has it: the button then says "Update"."""
        self.find("[data-testid=bottombar-submit-button]").click()
        self.find("[data-testid=bottombar-update-button]")

    def hide_regions(self) -> None:
        """What the eye beside each region does, or undoes."""
        self.driver.execute_script(HIDE)
        self.settle()

    def next_page(self) -> None:
        """Turn to the next page of a task with several."""
        shown = self.driver.execute_script(PAGE)
        self.find(".lsf-pagination__btn_arrow-right").click()
        self.wait(lambda: self.driver.execute_script(PAGE) == shown + 1)
        self.wait(lambda: self.photo()[2] > 200)
        self.settle()

    def open_tab(self, project: int, title: str) -> None:
        """A tab of the project's Data Manager, by clicking on it."""
        self.driver.get(f"{self.url}/projects/{project}/data")
        self.find_text(title).click()
        self.wait(lambda: "tab=" in self.driver.current_url and self.task_rows())
        self.settle()

    def task_rows(self) -> list[int]:
        """Numbers of the tasks that the Data Manager lists, from top to bottom."""
        boxes = self.driver.find_elements(By.CSS_SELECTOR, "input[aria-label^='Select Task']")
        return [int(str(box.get_attribute("aria-label")).split()[-1]) for box in boxes]

    def open_row(self, row: int) -> list[Region]:
        """Click on a listed task; its regions."""
        self.driver.find_elements(By.CSS_SELECTOR, ".lsf-table-row")[row].click()
        self.wait(lambda: self.photo()[2] > 200)
        self.wait(self.regions)
        self.settle()
        return self.regions()

    def retrieve_all(self, project: int) -> None:
        """The Data Manager's "Retrieve Predictions" for all tasks, by clicking."""
        self.driver.get(f"{self.url}/projects/{project}/data")
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "input[aria-label^='Select Task']"))
        self.driver.find_element(By.CSS_SELECTOR, "input[aria-label='Select all rows']").click()
        self.find("button[aria-label='Tasks Actions']").click()
        self.find_text("Retrieve Predictions").click()
        self.find("[data-testid=dialog-ok-button]").click()

    def screenshot(self) -> Image.Image:
        """The page as it is now."""
        return Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")

    def find_text(self, text: str) -> WebElement:
        """The innermost element that shows just this text, once there is one."""

        def shown() -> WebElement | None:
            found = self.driver.find_elements(By.XPATH, f"//*[normalize-space(text())='{text}']")
            return next((one for one in reversed(found) if one.is_displayed()), None)

        element: WebElement = self.wait(shown)
        return element

    def settle(self) -> None:
        """Wait until two pictures in a row are the same: fonts and animations are done then."""
        before = self.screenshot().tobytes()

        def still() -> bool:
            nonlocal before
            time.sleep(0.5)
            last, before = before, self.screenshot().tobytes()
            return last == before

        self.wait(still)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until the condition holds; what it returned."""
        return WebDriverWait(self.driver, SECONDS).until(lambda _: condition())


@contextmanager
def open_page(url: str, login: Login, profile: Path) -> Iterator[Page]:
    """A browser with an empty profile, logged in. Without one the test is skipped; it fails with CI set,
    since nobody would see that it is left out."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        missing = "no Chromium here: apt-get install chromium chromium-driver"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if os.geteuid() == 0:  # Chromium refuses root otherwise
        options.add_argument("--no-sandbox")
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        chrome.get(f"{url}/user/login/")
        chrome.find_element(By.NAME, "email").send_keys(login.email)
        chrome.find_element(By.NAME, "password").send_keys(login.password)
        chrome.find_element(By.CSS_SELECTOR, "form button").click()
        WebDriverWait(chrome, SECONDS).until(lambda _: "/user/login" not in chrome.current_url)
        yield Page(chrome, url)
    finally:
        chrome.quit()
