"""Network inputs made in threads: the same ones in the same order, and no thread stays behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from PIL import Image

from worker.images import Photo, to_tensor
from worker.images.ahead import tensors
from worker.networks import Preprocessing

PREPROCESSING = Preprocessing(size=(12, 10))
PHOTOS = [Photo.of(Image.effect_noise((20 + i, 30), 60).convert("RGB")) for i in range(9)]


def _threads() -> int:
    return sum(thread.name.startswith("inputs") for thread in threading.enumerate())


@pytest.mark.parametrize("ahead", [0, 1, 4, 100])
def test_inputs_are_those_of_the_photos_in_their_order(ahead: int) -> None:
    found = list(tensors(PHOTOS, PREPROCESSING, ahead=ahead))
    assert len(found) == len(PHOTOS)
    for tensor, photo in zip(found, PHOTOS, strict=True):
        assert torch.equal(tensor, to_tensor(photo, PREPROCESSING))
    assert _threads() == 0


def _watched(seen: list[Photo]) -> Iterator[Photo]:
    for photo in PHOTOS:
        seen.append(photo)
        yield photo


@pytest.mark.parametrize(("ahead", "asked"), [(0, 2), (3, 5), (100, 9)])
def test_so_many_are_in_the_making_and_no_more(ahead: int, asked: int) -> None:
    seen: list[Photo] = []
    inputs = tensors(_watched(seen), PREPROCESSING, ahead=ahead)
    next(inputs)
    next(inputs)
    assert len(seen) == asked
    assert (_threads() > 0) == (ahead > 0)
    inputs.close()
    assert _threads() == 0


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_photo_that_fails_does_so_when_its_turn_comes(ahead: int) -> None:
    broken = Image.new("RGB", (4, 4))
    broken.close()
    inputs = tensors([PHOTOS[0], PHOTOS[1], broken, PHOTOS[2]], PREPROCESSING, ahead=ahead)
    assert torch.equal(next(inputs), to_tensor(PHOTOS[0], PREPROCESSING))
    assert torch.equal(next(inputs), to_tensor(PHOTOS[1], PREPROCESSING))
    with pytest.raises(ValueError, match="closed image"):
        next(inputs)
    assert _threads() == 0
