"""Image bytes to an upright RGB picture, within limits; whatever is wrong with them is an ImageDecodeError."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from worker.errors import ImageDecodeError

FORMATS = (
    "JPEG",  # and MPO, several JPEGs in one file, which phones write as .jpg
    "PNG",
    "GIF",
    "WEBP",
    "BMP",
    "TIFF",
    "PPM",
    *(("AVIF",) if features.check("avif") else ()),
)
"""Decoders that files may reach. All others of Pillow's, Ghostscript for EPS among them, stay out of reach."""

BACKGROUND = (255, 255, 255)
"""Transparent pixels are laid over white, as on a page."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the turn that makes the picture upright."""
_ORIENTATION = 0x0112
_STRIP = 1 << 22
"""Pixels that are converted at once."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a file may cost. Anything beyond is refused before its pixels are decoded."""

    max_bytes: int = 64 << 20
    """Size of the file."""
    max_pixels: int = 120_000_000
    """Width × height. Pillow's own limit, 179 million, holds besides."""
    max_side: int = 65_535
    """Width, and height: the most that a JPEG can have."""
    detail: int = 896
    """Larger pictures are reduced while they are decoded, but never below this many pixels on either side:
    four times what networks look at."""


@dataclass(frozen=True, slots=True)
class Photo:
    """An upright RGB picture, perhaps reduced, and the size that it really has.

    Boxes always refer to `width` × `height`, those of the upright original.
    """

    image: Image.Image
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright original."""
        return self.width, self.height

    @classmethod
    def of(cls, image: Image.Image) -> Photo:
        """A picture that is already decoded and upright, in any mode."""
        return cls(_to_rgb(image), image.width, image.height)


def decode(data: bytes, limits: ImageLimits = ImageLimits(), name: str = "image") -> Photo:
    """Decode the first frame of an image file and turn it upright.

    Any mode becomes 8-bit RGB: alpha over white, CMYK and palettes converted, 16-bit grey scaled as browsers
    do, other deep grey (32-bit, float) from its own darkest to its brightest. Orientation comes from EXIF alone,
    as in browsers. Raises ImageDecodeError, naming `name`, if the file is no such picture, is cut off or
    damaged, or exceeds `limits`.
    """
    _check_bytes(data, limits, name)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures and of odd metadata; our own limit decides, not a warning.
            warnings.simplefilter("ignore")
            return _decode(data, limits, name)
    except ImageDecodeError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise ImageDecodeError(f"{name} is too large to decode: shrink it") from None
    except Exception as error:  # noqa: BLE001 - damaged files make decoders raise nearly anything
        raise ImageDecodeError(f"{name} {_what_is(data, error)}") from None


def _check_bytes(data: bytes, limits: ImageLimits, name: str) -> None:
    if len(data) > limits.max_bytes:
        raise ImageDecodeError(
            f"{name} has {len(data):,} bytes, over the limit of {limits.max_bytes:,} (BOXLIFT_MAX_IMAGE_BYTES): "
            "shrink it or raise the limit"
        )


def _check_size(width: int, height: int, limits: ImageLimits, name: str) -> None:
    if width * height > limits.max_pixels:
        raise ImageDecodeError(
            f"{name} is {width} × {height}, over the limit of {limits.max_pixels:,} pixels "
            "(BOXLIFT_MAX_IMAGE_PIXELS): shrink it or raise the limit"
        )
    if max(width, height) > limits.max_side:
        raise ImageDecodeError(
            f"{name} is {width} × {height}, longer than {limits.max_side:,} pixels: cut it into parts"
        )


def _decode(data: bytes, limits: ImageLimits, name: str) -> Photo:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        _check_size(width, height, limits, name)
        turn = _TURNS.get(_orientation(image))
        image.draft("RGB", (limits.detail, limits.detail))  # JPEG: decodes fewer pixels; others: nothing
        image.load()
        reduced = _to_rgb(image, limits.detail)
    if turn is not None:
        reduced = reduced.transpose(turn)
        if turn in (
            Image.Transpose.TRANSPOSE,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
            Image.Transpose.ROTATE_270,
        ):
            width, height = height, width
    return Photo(reduced, width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none that can be read. TIFF is turned by Pillow itself.

    `Image.getexif` would also read XMP, which browsers ignore: the box would not fit what annotators see.
    """
    raw = image.info.get("exif")
    if not raw or image.format == "TIFF":
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason to lose the photo; browsers show it as it lies
        return 1


def _to_rgb(image: Image.Image, detail: int | None = None) -> Image.Image:
    """8-bit RGB, reduced where both sides stay above `detail`.

    Strip by strip: whatever its mode, a picture costs what its decoder needs and little more.
    """
    width, height = image.size
    factor = max(1, min(image.size) // detail) if detail else 1
    if image.mode == "RGB" and not image.has_transparency_data:
        if factor > 1:
            return image.reduce(factor)
        return image.copy() if image.readonly else image
    rows = max(1, _STRIP // width // factor) * factor
    strips = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    shades = _shades(image, strips)
    whole = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for strip in strips:
        part = _strip_to_rgb(image.crop(strip), shades)
        whole.paste(part.reduce(factor) if factor > 1 else part, (0, strip[1] // factor))
    return whole


def _shades(image: Image.Image, strips: list[tuple[int, int, int, int]]) -> tuple[float, float]:
    """What becomes black and what white in deep grey; of no meaning in other modes."""
    if image.mode not in ("I", "F"):
        return 0.0, 255.0
    deep = (np.nan_to_num(np.asarray(image.crop(strip), dtype=np.float64)) for strip in strips)
    lows, highs = zip(*((float(part.min()), float(part.max())) for part in deep), strict=True)
    low, high = min(lows), max(highs)
    if image.mode == "I" and low >= 0 and high < 1 << 16:
        return 0.0, 65535.0  # 16 bits in a wider type
    return low, high


def _strip_to_rgb(image: Image.Image, shades: tuple[float, float]) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.uint16)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        low, high = shades
        deep = np.nan_to_num(np.asarray(image, dtype=np.float64))
        image = Image.fromarray(((deep - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8))
    if image.has_transparency_data:
        above = image.convert("RGBA")
        below = Image.new("RGBA", above.size, (*BACKGROUND, 255))
        return Image.alpha_composite(below, above).convert("RGB")
    return image.convert("RGB")


def _what_is(data: bytes, error: Exception) -> str:
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "is empty"
    if b"<svg" in head:
        return "is an SVG drawing, which has no pixels: export it as PNG"
    if head.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a picture: its address may need a login"
    if isinstance(error, UnidentifiedImageError):
        return f"is not a picture that can be read ({', '.join(FORMATS)})"
    return "is damaged or cut off: replace the file"
