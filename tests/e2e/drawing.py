"""Where boxes really are on the page: the pixels that change when they are hidden."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.contract import Box

from .browser import Page

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
CLOSE = 4.0
"""Pixels by which an outline may lie beside its box: it has a width."""


def assert_drawn(page: Page, value: Mapping[str, Any], picture: str) -> None:
    """The one box that the page shows is drawn where `value` (percent of the photo) says, with a closed outline.

    Leaves a screenshot in artifacts/`picture`.
    """
    page.unselect()
    with_box = page.screenshot()
    ARTIFACTS.mkdir(exist_ok=True)
    with_box.save(ARTIFACTS / picture, optimize=True)
    left, top, width, height = page.photo()
    page.hide_regions()
    without = page.screenshot()
    page.hide_regions()

    # Inside the photo, hiding the region changes exactly the pixels of its box.
    photo = (round(left), round(top), round(left + width), round(top + height))
    changed = np.any(np.asarray(with_box.crop(photo)) != np.asarray(without.crop(photo)), axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows.size, "no pixel of the photo changed when its box was hidden"
    drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    expected = tuple(
        share * size for share, size in zip(fractions(value), (width, height, width, height), strict=True)
    )
    assert drawn == pytest.approx(expected, abs=CLOSE), "the box is not where the prediction says"
    # Its outline is closed: along all four sides nearly every pixel is covered.
    x0, y0, x1, y1 = drawn
    across = (changed[y0 : y0 + 3, x0:x1], changed[y1 - 3 : y1, x0:x1])
    upright = (changed[y0:y1, x0 : x0 + 3], changed[y0:y1, x1 - 3 : x1])
    assert min(side.any(axis=0).mean() for side in across) > 0.9
    assert min(side.any(axis=1).mean() for side in upright) > 0.9


def fractions(value: Mapping[str, Any]) -> Box:
    """Percent as Label Studio has them → (x0, y0, x1, y1) as fractions of the photo."""
    x, y, width, height = (float(value[name]) / 100 for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (areas - common)
