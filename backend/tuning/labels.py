"""Labels that the network learns from a project's corrections: features of photos, once, and a head on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from backend.plans import Reading
from backend.tuning.examples import Example
from backend.tuning.fetching import Fetched
from worker import heads
from worker.boxes import as_box
from worker.contract import digest
from worker.errors import ImageError
from worker.images import ImageLimits, decode
from worker.images.fetch import printable
from worker.learning.cache import MapCache, content_digest
from worker.localizer import Localizer

log = logging.getLogger("boxlift.tuning")
_LAST = "lastlayer"


def competition(reading: Reading) -> heads.Competition:
    """Which of the network's classes the config's labels have already."""
    rest = [target.label for target in reading.mapping.rest.values()]
    return heads.Competition(reading.mapping.labels, rest[0] if rest else None)


def learn_labels(
    examples: Sequence[Example],
    reading: Reading,
    cache: MapCache,
    network: Callable[[], Localizer],
    photos: Fetched,
    limits: ImageLimits,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> heads.Learned:
    """A head for the project's labels, if it is better. `network` is called only for photos that are new.

    Raises NetworkError where the network cannot learn labels at all.
    """
    last = _last_layer(cache, network)
    found = []
    try:
        for one in examples:
            found.append(_features(one, cache, network, photos, limits))
            progress(len(found), len(examples))
    finally:
        cache.close()
    return heads.train_head([one for one in found if one is not None], last, competition(reading))


def _last_layer(cache: MapCache, network: Callable[[], Localizer]) -> heads.LastLayer:
    kept = cache.arrays(_LAST)
    if kept is not None and {"weight", "bias"} <= kept.keys():
        return heads.LastLayer(kept["weight"], kept["bias"])
    last = heads.last_layer(network().network)
    cache.keep_arrays(_LAST, {"weight": last.weight, "bias": last.bias})
    return last


def _features(
    example: Example, cache: MapCache, network: Callable[[], Localizer], photos: Fetched, limits: ImageLimits
) -> heads.Example | None:
    boxes = [(label, as_box(box)) for label, box in zip(example.labels, example.boxes, strict=True)]
    if not any(label for label, _ in boxes):
        return None
    address, content = example.image.url, cache.content(example.image.url)
    name = digest([content, boxes], 32)
    kept = cache.arrays(name) if content else None
    if kept is not None and {"whole", "crops", "labels"} <= kept.keys():
        return heads.Example(kept["whole"], kept["crops"], tuple(str(label) for label in kept["labels"]))
    try:
        data = photos.get(address)
        photo = decode(data, limits, name=printable(address))
        cache.saw(address, content_digest(data))
    except ImageError as error:
        log.warning("task %d is left out: %s", example.task, error, extra={"task": example.task})
        return None
    made = next(heads.examples(network().network, [(photo, boxes)]), None)
    if made is not None:
        name = digest([content_digest(data), boxes], 32)
        arrays = {"whole": made.whole, "crops": made.crops}
        cache.keep_arrays(name, arrays | {"labels": np.array(made.crop_labels, dtype=np.str_)})
    return made
