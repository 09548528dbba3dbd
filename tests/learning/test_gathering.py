"""Photos are read once in a run, and what may have changed in its place is looked at again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from blobs import blobs

from backend.tuning.examples import Example
from backend.tuning.fetching import Fetched
from backend.tuning.gathering import Gathered, gather
from worker.contract import ImageRef
from worker.errors import ImageError, NetworkError
from worker.images import ImageLimits
from worker.learning.cache import MapCache, content_digest
from worker.localizer import Localizer

LOCAL, UPLOAD = "/data/local-files/?d=a.jpg", "/data/upload/1/a.jpg"
BEFORE = b"the photo of that time"


def no_network() -> Localizer:
    raise NetworkError("the network is asked for")


@pytest.fixture
def look(tmp_path: Path) -> Callable[[str, Callable[[str], bytes]], Gathered]:
    """Gather the maps of one picture that is known under an address, with `fetch` for what is there now."""
    maps, [truth] = blobs(1)

    def look(address: str, fetch: Callable[[str], bytes]) -> Gathered:
        cache = MapCache(tmp_path, "v1")
        cache.keep(address, content_digest(BEFORE), maps)
        with Fetched(fetch) as photos:
            example = Example(1, ImageRef(address, "image"), None, truth, ("",))
            return gather([example], cache, no_network, photos, ImageLimits())

    return look


def gone(address: str) -> bytes:
    raise ImageError(f"{address} cannot be had")


def test_another_photo_in_the_place_of_a_local_file_is_noticed(
    look: Callable[[str, Callable[[str], bytes]], Gathered],
) -> None:
    assert len(look(LOCAL, lambda _: BEFORE).maps) == 1
    assert len(look(LOCAL, gone).maps) == 1, "what is known serves"
    with pytest.raises(NetworkError, match="asked for"):
        look(LOCAL, lambda _: b"another photo")
    assert len(look(UPLOAD, lambda _: b"never asked for").maps) == 1, "Label Studio never changes an upload"


def test_each_photo_is_fetched_once_as_far_as_there_is_room() -> None:
    asked = Counter[str]()

    def fetch(address: str) -> bytes:
        asked[address] += 1
        return b"x" * int(address)

    with Fetched(fetch, limit=100) as photos:
        for _ in range(3):
            assert [len(photos.get(size)) for size in ("60", "50", "40", "0")] == [60, 50, 40, 0]
    assert asked == {"60": 1, "50": 3, "40": 1, "0": 1}
