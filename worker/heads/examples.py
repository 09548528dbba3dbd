"""Annotated photos as what a head learns from: features of every labelled box, and of the whole photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageOps

from worker.contract import Box
from worker.heads.features import features
from worker.images import Photo
from worker.networks import Network
from worker.regions import cut

Floats = npt.NDArray[np.floating]

MARGIN = 0.4
"""What a crop shows around its box, on each side, as a fraction of the box's side.

Of crops with margins 0.1 and 0.4, whole photos, and mixtures of them, such crops did best, also on whole photos:
half of what is seen of these speaks of something else. Mirror images add a little."""
MOST_BOXES = 6
"""Largest boxes of a photo that are looked at: each costs two passes through the network."""


@dataclass(frozen=True, eq=False)
class Example:
    """One annotated photo, as the network's last linear layer sees it."""

    whole: Floats
    """(D,) of the whole photo, which is what predictions are made of."""
    crops: Floats
    """(V, D) of its labelled boxes with a margin, and of their mirror images."""
    crop_labels: tuple[str, ...]
    """(V,)"""

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the photo, that of its largest box first."""
        return tuple(dict.fromkeys(self.crop_labels))


def examples(network: Network, photos: Iterable[tuple[Photo, Sequence[tuple[str, Box]]]]) -> Iterator[Example]:
    """Photos with their labelled boxes, in fractions of the upright photo → an example for each that has any.

    Boxes with the label "" do not count. Two passes through the network for each box and one for the photo, with
    nothing kept but features. Raises NetworkError where the network does not end in a linear layer.
    """
    for photo, boxes in photos:
        shown = sorted((box for box in boxes if box[0]), key=lambda item: -_area(item[1]))[:MOST_BOXES]
        if shown:
            crops = [cut(photo, loosened(box)) for _, box in shown]
            both = [view for crop in crops for view in (crop, _mirrored(crop))]
            found = features(network, [photo, *both]).numpy()
            labels = tuple(label for label, _ in shown for _ in range(2))
            yield Example(found[0], found[1:], labels)


def loosened(box: Box, margin: float = MARGIN) -> Box:
    """The box with a margin on each side, within the photo."""
    x0, y0, x1, y1 = box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return max(0.0, x0 - dx), max(0.0, y0 - dy), min(1.0, x1 + dx), min(1.0, y1 + dy)


def _mirrored(photo: Photo) -> Photo:
    return dataclasses.replace(photo, image=ImageOps.mirror(photo.image))


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
