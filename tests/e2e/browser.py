"""A headless Chromium that looks at Label Studio as a person does."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
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
REGIONS = """
    const store = window.Htx && Htx.annotationStore && Htx.annotationStore.selected;
    return store ? store.regionStore.regions.map(r => ({
        label: r.labels[0], score: r.score, x: r.x, y: r.y, width: r.width, height: r.height})) : [];
"""
PHOTO = """
    const shown = [...document.querySelectorAll("img")].map(i => i.getBoundingClientRect());
    const box = shown.sort((a, b) => b.width * b.height - a.width * a.height)[0];
    return [box.x, box.y, box.width, box.height];
"""
HIDE = "Htx.annotationStore.selected.regionStore.regions.forEach(r => r.toggleHidden());"


@dataclass(frozen=True)
class Page:
    """Label Studio in a browser, logged in."""

    driver: webdriver.Chrome
    url: str

    def open_task(self, project: int, task: int) -> list[dict[str, object]]:
        """Open a task's labelling page and wait for its regions: label, score, x, y, width, height in percent."""
        self.driver.get(f"{self.url}/projects/{project}/data?task={task}")
        regions: list[dict[str, object]] = self._wait(lambda: self.driver.execute_script(REGIONS))
        self._wait(lambda: self.photo()[2] > 200)
        self._settle()
        return regions

    def panel(self) -> str:
        """Text of the list of regions."""
        return self.driver.find_element(By.CSS_SELECTOR, ".lsf-outliner").text

    def photo(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the photo on the page, in pixels."""
        x, y, width, height = self.driver.execute_script(PHOTO)
        return float(x), float(y), float(width), float(height)

    def hide_regions(self) -> None:
        """What the eye beside each region does."""
        self.driver.execute_script(HIDE)
        self._settle()

    def screenshot(self) -> Image.Image:
        """The page as it is now."""
        return Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")

    def _settle(self) -> None:
        """Wait until two pictures in a row are the same: fonts and animations are done then."""
        before = self.screenshot().tobytes()

        def still() -> bool:
            nonlocal before
            time.sleep(0.5)
            last, before = before, self.screenshot().tobytes()
            return last == before

        self._wait(still)

    def _wait(self, condition):  # type: ignore[no-untyped-def]
        return WebDriverWait(self.driver, SECONDS).until(lambda _: condition())


@contextmanager
def open_page(url: str, login: Login, profile: Path) -> Iterator[Page]:
    """A browser with an empty profile, logged in. Skips the test where no browser is installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
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
