"""The maps of examples: from the cache, and for the others from the photos and the network, once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from backend.tuning.examples import Example
from backend.tuning.fetching import Fetched
from worker.errors import ImageError
from worker.images import ImageLimits, Photo, decode
from worker.images.fetch import printable
from worker.learning import Maps, map_photos
from worker.learning.cache import MapCache, content_digest
from worker.localizer import Localizer

log = logging.getLogger("boxlift.tuning")
_AT_ONCE = 8
_CHANGING = "/data/local-files/"
"""Addresses under which people put other photos, without telling anybody."""


@dataclass
class Gathered:
    """Examples whose maps could be had, and these."""

    examples: list[Example]
    maps: list[Maps]
    """Of one photo each."""
    computed: int = 0
    unusable: int = 0
    """Photos that could not be fetched or read."""


def gather(
    examples: Sequence[Example],
    cache: MapCache,
    network: Callable[[], Localizer],
    photos: Fetched,
    limits: ImageLimits,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Gathered:
    """The maps of all examples that can be used. `network` is called only where some are missing. Local files are
    read again each time, since they may have changed; where that fails, what is known of them serves.

    Raises BoxliftError where a photo is missing and the network cannot be had.
    """
    found: dict[int, Maps] = {}
    for place, example in enumerate(examples):
        _look_again(example, cache, photos)
        maps = cache.find(example.image.url, example.classes)
        if maps is not None:
            found[place] = maps
    missing = [place for place in range(len(examples)) if place not in found]
    gathered = Gathered([], [])
    if missing:
        localizer = network()
        try:
            _compute(examples, missing, found, gathered, cache, localizer, photos, limits, progress)
        finally:
            cache.close()
    for place in sorted(found):
        gathered.examples.append(examples[place])
        gathered.maps.append(found[place])
    return gathered


def _look_again(example: Example, cache: MapCache, photos: Fetched) -> None:
    address = example.image.url
    if address.startswith(_CHANGING) and cache.content(address) is not None:
        with contextlib.suppress(ImageError):
            cache.saw(address, content_digest(photos.get(address)))


def _compute(
    examples: Sequence[Example],
    missing: Sequence[int],
    found: dict[int, Maps],
    gathered: Gathered,
    cache: MapCache,
    localizer: Localizer,
    photos: Fetched,
    limits: ImageLimits,
    progress: Callable[[int, int], object],
) -> None:
    done = 0
    for start in range(0, len(missing), _AT_ONCE):
        part = missing[start : start + _AT_ONCE]
        loaded: list[tuple[int, str, Photo]] = []
        for place in part:
            example = examples[place]
            try:
                data = photos.get(example.image.url)
                content = content_digest(data)
                known = cache.look_up(content, example.classes)
                if known is not None:
                    found[place] = known
                    cache.keep(example.image.url, content, known)
                else:
                    loaded.append((place, content, decode(data, limits, name=printable(example.image.url))))
            except ImageError as error:
                gathered.unusable += 1
                log.warning("task %d is left out: %s", example.task, error, extra={"task": example.task})
        if loaded:
            for (place, content, _), maps in zip(loaded, _mapped(localizer, examples, loaded), strict=True):
                found[place] = maps
                cache.keep(examples[place].image.url, content, maps)
        gathered.computed += len(loaded)
        done += len(part)
        progress(done, len(missing))


def _mapped(
    localizer: Localizer, examples: Sequence[Example], loaded: Sequence[tuple[int, str, Photo]]
) -> Iterator[Maps]:
    photos = ((photo, examples[place].classes) for place, _, photo in loaded)
    for maps in map_photos(localizer, photos, at_once=_AT_ONCE):
        for number in range(len(maps)):
            yield maps.take([number])
