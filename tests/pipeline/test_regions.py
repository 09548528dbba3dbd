"""A part of a photo, and its boxes back in the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.contract import Detection
from worker.images import Photo
from worker.regions import cut, put_back


def test_the_whole_is_left_alone() -> None:
    photo = Photo.of(Image.new("RGB", (200, 100)))
    found = Detection("pug", 254, 0.5, (1, 2, 3, 4))
    assert cut(photo, None) is photo
    assert put_back(found, photo, None) is found


def test_a_part_has_its_own_pixels_and_its_boxes_go_back() -> None:
    image = Image.new("RGB", (200, 100))
    image.paste((255, 0, 0), (100, 50, 150, 75))
    photo = Photo.of(image)
    part = cut(photo, (0.5, 0.5, 0.75, 0.75))
    assert part.size == (50, 25)
    assert part.image.getcolors() == [(50 * 25, (255, 0, 0))]
    back = put_back(Detection("pug", 254, 0.5, (10, 5, 50, 25)), photo, (0.5, 0.5, 0.75, 0.75))
    assert back.box == (110, 55, 150, 75)


def test_a_photo_that_was_reduced_keeps_its_real_size() -> None:
    photo = Photo(Image.new("RGB", (100, 50)), 1000, 500)
    region = (0.2, 0.2, 0.6, 0.8)
    part = cut(photo, region)
    assert part.size == (400, 300)
    assert put_back(Detection("pug", 254, 0.5, (0, 0, 400, 300)), photo, region).box == (200, 100, 600, 400)


@given(
    st.tuples(*[st.floats(0, 1)] * 4),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
def test_something_is_always_left(corners: tuple[float, ...], size: tuple[int, int]) -> None:
    x0, x1, y0, y1 = *sorted(corners[:2]), *sorted(corners[2:])
    photo = Photo.of(Image.new("RGB", size))
    part = cut(photo, (x0, y0, x1, y1))
    assert 1 <= part.width <= photo.width
    assert 1 <= part.height <= photo.height
    whole = put_back(Detection("pug", 254, 0.5, (0, 0, part.width, part.height)), photo, (x0, y0, x1, y1)).box
    assert whole[2] <= photo.width + 1e-6
    assert whole[3] == pytest.approx(whole[1] + part.height)
