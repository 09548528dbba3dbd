"""Every format and mode becomes the same upright RGB picture; whatever is broken costs one image only."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from worker.errors import ImageDecodeError
from worker.images import ImageLimits, Photo, decode

RED, GREEN, BLUE = (200, 30, 20), (20, 160, 40), (30, 40, 190)


def scene(width: int = 90, height: int = 60) -> Image.Image:
    """Red, with a green top left corner and a blue stripe at the bottom: no two orientations look alike."""
    image = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3 - 1, height // 3 - 1), fill=GREEN)
    draw.rectangle((0, height * 5 // 6, width, height), fill=BLUE)
    return image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def assert_close(photo: Photo, expected: Image.Image, tolerance: float = 6) -> None:
    assert photo.image.mode == "RGB"
    assert photo.size == expected.size
    got = np.asarray(photo.image, dtype=float)
    want = np.asarray(expected.convert("RGB"), dtype=float)
    assert np.abs(got - want).mean() < tolerance


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("MPO", {"quality": 95}),
    ],
)
def test_formats(kind: str, options: dict[str, object]) -> None:
    assert_close(decode(encode(scene(), kind, **options)), scene())


# Where the upright picture's pixels lie in the file, for each EXIF orientation.
STORED = {
    1: lambda im: im,
    2: lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda im: im.transpose(Image.Transpose.ROTATE_180),
    4: lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda im: im.transpose(Image.Transpose.TRANSPOSE),
    6: lambda im: im.transpose(Image.Transpose.ROTATE_90),
    7: lambda im: im.transpose(Image.Transpose.TRANSVERSE),
    8: lambda im: im.transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    data = encode(STORED[orientation](scene()), kind, exif=exif, **quality)
    assert_close(decode(data), scene())


@pytest.mark.parametrize("raw", [b"Exif\0\0", b"Exif\0\0garbage and more of it", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_damaged_exif_is_no_reason_to_lose_the_photo(raw: bytes) -> None:
    assert_close(decode(encode(scene(), "JPEG", quality=95, exif=raw)), scene())


def test_orientation_out_of_range_counts_as_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert_close(decode(encode(scene(), "JPEG", quality=95, exif=exif)), scene())


def test_orientation_in_xmp_alone_is_ignored_as_browsers_do() -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(scene(), "WEBP", lossless=True, xmp=packet)
    assert_close(decode(data), scene())


def test_cmyk() -> None:
    assert_close(decode(encode(scene().convert("CMYK"), "JPEG", quality=95)), scene())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind: str) -> None:
    grey = np.asarray(scene().convert("L"), dtype=np.uint16) * 257
    assert_close(decode(encode(Image.fromarray(grey), kind)), scene().convert("L"), tolerance=1)


def test_float_grey_is_spread_from_its_darkest_to_its_brightest() -> None:
    values = np.linspace(-3.0, 5.0, 90 * 60, dtype=np.float32).reshape(60, 90)
    got = np.asarray(decode(encode(Image.fromarray(values), "TIFF")).image)
    assert (got.min(), got.max()) == (0, 255)


def test_thirty_two_bit_grey() -> None:
    values = np.linspace(0, 2_000_000, 90 * 60).astype(np.int32).reshape(60, 90)
    got = np.asarray(decode(encode(Image.fromarray(values), "TIFF")).image)
    assert (got.min(), got.max()) == (0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    image = scene().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    photo = decode(encode(image.convert(mode), "PNG"))
    assert np.asarray(photo.image).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind: str) -> None:
    image = scene().quantize(8)
    index = image.getpixel((0, 0))
    photo = decode(encode(image, kind, transparency=index))
    expected = np.asarray(scene()).copy()
    expected[:20, :30] = 255
    assert np.abs(np.asarray(photo.image, dtype=float) - expected).mean() < 3


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours(mode: str) -> None:
    image = scene().convert(mode)
    assert_close(decode(encode(image, "PNG")), image.convert("RGB"), tolerance=1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animations_show_their_first_frame(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    later = Image.new("RGB", scene().size, BLUE)
    data = encode(scene(), kind, save_all=True, append_images=[later, later], duration=50, **options)
    assert_close(decode(data), scene())


def test_large_photos_are_reduced_but_keep_their_size() -> None:
    photo = decode(encode(scene(5000, 3000), "JPEG", quality=90))
    assert photo.size == (5000, 3000)
    assert 896 <= min(photo.image.size) < 3000
    assert_close(Photo(photo.image, *photo.image.size), scene().resize(photo.image.size), tolerance=12)


def test_reduced_photos_are_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = decode(encode(STORED[6](scene(5000, 3000)), "JPEG", quality=90, exif=exif))
    assert photo.size == (5000, 3000)
    assert photo.image.width > photo.image.height


def test_extreme_shapes() -> None:
    assert decode(encode(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)
    assert decode(encode(Image.new("RGB", (20000, 2)), "PNG")).size == (20000, 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_files(kind: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(ImageDecodeError, match=r"cat\.jpg is (damaged or cut off|not a picture)"):
        decode(data[: int(len(data) * kept)], name="cat.jpg")


def png_bomb(width: int, height: int) -> bytes:
    """A few bytes that announce a huge picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(12_000, 11_000), (30_000, 30_000), (60_000, 60_000)])
def test_bombs_are_refused_before_they_are_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ImageDecodeError, match=r"over the limit|too large"):
        decode(png_bomb(*size))


def test_text_bombs_in_metadata_are_refused() -> None:
    body = b"k\0\0" + zlib.compress(bytes(80 << 20))
    text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    whole = encode(scene(), "PNG")
    with pytest.raises(ImageDecodeError):
        decode(whole[:33] + text + whole[33:])


def test_limits_are_the_callers() -> None:
    data = encode(scene(), "PNG")
    with pytest.raises(ImageDecodeError, match="BOXLIFT_MAX_IMAGE_BYTES"):
        decode(data, ImageLimits(max_bytes=len(data) - 1))
    with pytest.raises(ImageDecodeError, match="BOXLIFT_MAX_IMAGE_PIXELS"):
        decode(data, ImageLimits(max_pixels=90 * 60 - 1))
    assert decode(data, ImageLimits(max_bytes=len(data), max_pixels=90 * 60)).size == (90, 60)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\xef\xbb\xbf  <SVG/>", "SVG"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        (b"just text", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (bytes(5000), "not a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(300), "not a picture|damaged"),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(ImageDecodeError, match=reason):
        decode(data)


def test_random_damage_never_escapes_as_anything_else() -> None:
    rng = np.random.default_rng(1)
    sources = [encode(scene(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")]
    for source in sources:
        for _ in range(60):
            data = bytearray(source)
            for at in rng.integers(0, len(data), 8):
                data[at] = int(rng.integers(0, 256))
            try:
                photo = decode(bytes(data), ImageLimits(max_pixels=10_000_000))
            except ImageDecodeError:
                continue
            assert photo.image.mode == "RGB"
