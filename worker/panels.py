"""One picture per photo, as in the paper's figure: photo with boxes, DeepLIFT map, guided map, final map."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worker.boxes import Floats
from worker.contract import Box, Detection
from worker.images import Photo
from worker.localizer import View

HEIGHT = 360
"""Of each panel, in pixels; the width follows the photo's shape."""
_GAP = 8
_TITLE = 22
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_BOX = (255, 64, 32)

_STOPS = np.array(
    [(0, 0, 4), (60, 15, 110), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], dtype=float
)
"""Dark to bright, even to the eye and to colour-blind ones."""


def panels(photo: Photo, view: View) -> Image.Image:
    """The four panels side by side, each with its title, as an RGB picture."""
    size = (max(round(HEIGHT * photo.width / photo.height), HEIGHT // 3), HEIGHT)
    best = view.detections[0] if view.detections else None
    parts = [
        (_caption(best), draw_boxes(photo.image.resize(size), photo, view.detections)),
        ("DeepLIFT", colour(view.deeplift, size)),
        ("guided backpropagation", colour(view.guided, size)),
        ("final map", draw_boxes(colour(view.heat, size), photo, view.detections)),
    ]
    sheet = Image.new("RGB", (4 * size[0] + 5 * _GAP, HEIGHT + _TITLE + 2 * _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for index, (title, picture) in enumerate(parts):
        left = _GAP + index * (size[0] + _GAP)
        draw.text((left, _GAP // 2), _fit(title, font, size[0]), fill=_INK, font=font)
        sheet.paste(picture, (left, _TITLE + _GAP))
    return sheet


def colour(values: Floats, size: tuple[int, int]) -> Image.Image:
    """A map (h, w) as a picture of (width, height): 0 and less is dark, its 99.5th percentile and more bright."""
    hot = np.clip(np.asarray(values, dtype=float), 0, None)
    top = float(np.quantile(hot, 0.995)) or float(hot.max()) or 1.0
    shade = np.clip(hot / top, 0, 1) * (len(_STOPS) - 1)
    low = np.minimum(shade.astype(int), len(_STOPS) - 2)
    rgb = _STOPS[low] + (shade - low)[..., None] * (_STOPS[low + 1] - _STOPS[low])
    return Image.fromarray(rgb.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def draw_boxes(picture: Image.Image, photo: Photo, detections: tuple[Detection, ...]) -> Image.Image:
    """A copy of a picture of the photo with the photo's boxes drawn on it."""
    marked = picture.copy()
    draw = ImageDraw.Draw(marked)
    across, down = picture.width / photo.width, picture.height / photo.height
    for item in detections:
        x0, y0, x1, y1 = item.box
        corners = (x0 * across, y0 * down, max(x1 * across - 1, x0 * across), max(y1 * down - 1, y0 * down))
        draw.rectangle(corners, outline=_BOX, width=3)
    return marked


def draw_frame(picture: Image.Image, box: Box, colour: tuple[int, int, int] = (60, 200, 90)) -> None:
    """Draw a box, in fractions of the picture, on the picture itself."""
    x0, y0, x1, y1 = box
    width, height = picture.size
    corners = (x0 * width, y0 * height, max(x1 * width - 1, x0 * width), max(y1 * height - 1, y0 * height))
    ImageDraw.Draw(picture).rectangle(corners, outline=colour, width=max(2, height // 120))


def _caption(best: Detection | None) -> str:
    return f"{best.label} {best.score:.2f}" if best else "nothing found"


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text
