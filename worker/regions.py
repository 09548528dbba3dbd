"""Looking at a part of a photo: cut it out before the network, put the boxes back where they were after it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from worker.contract import Box, Detection

if TYPE_CHECKING:
    from worker.images import Photo


def cut(photo: Photo, region: Box | None) -> Photo:
    """The part of a photo inside `region` (fractions of its width and height); the whole photo for None.

    At least one pixel is left, whatever the region.
    """
    if region is None:
        return photo
    columns, rows = photo.image.size
    left, top = min(int(region[0] * columns), columns - 1), min(int(region[1] * rows), rows - 1)
    right, bottom = max(round(region[2] * columns), left + 1), max(round(region[3] * rows), top + 1)
    image = photo.image.crop((left, top, min(right, columns), min(bottom, rows)))
    scale = photo.width / columns, photo.height / rows
    return replace(
        photo,
        image=image,
        width=max(1, round(image.width * scale[0])),
        height=max(1, round(image.height * scale[1])),
    )


def put_back(detection: Detection, photo: Photo, region: Box | None) -> Detection:
    """A detection in the part, in pixels of the whole `photo`."""
    if region is None:
        return detection
    columns, rows = photo.image.size
    dx = min(int(region[0] * columns), columns - 1) * photo.width / columns
    dy = min(int(region[1] * rows), rows - 1) * photo.height / rows
    x0, y0, x1, y1 = detection.box
    return replace(detection, box=(x0 + dx, y0 + dy, x1 + dx, y1 + dy))
