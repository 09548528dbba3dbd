"""Files that strangers made, to cost more than a photo does or to be taken for something else."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, PngImagePlugin

from worker.errors import ImageError
from worker.images import ImageLimits, decode

from .attack import Attack, Scene

decoding = sys.modules[decode.__module__]
"""The module: the package has a function of the same name."""

USUAL = ImageLimits()


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(width: int = 64, height: int = 48) -> Image.Image:
    """A picture that does not compress."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def opened(data: bytes, limits: ImageLimits = USUAL) -> bool:
    """Whether a file becomes a picture. What escapes besides Boxlift's own errors is worse than that."""
    try:
        decoding.decode(data, limits, "attack")
    except ImageError:
        return False
    except Exception:  # noqa: BLE001 - it would take a whole batch down
        return True
    return True


def _opens(data: Callable[[], bytes], limits: ImageLimits = USUAL) -> Callable[[Scene], bool]:
    return lambda scene: opened(data(), limits)


def _with_text(size: int) -> bytes:
    body = b"k\0\0" + zlib.compress(bytes(size))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    whole = written(noise(), "PNG")
    return whole[:33] + chunk + whole[33:]


def _no_text_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 40)
    patch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1 << 40)


def _no_size_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decoding, "_check_size", lambda *some: None)


def _runs_postscript(scene: Scene) -> bool:
    """Whether a file gets as far as a program that does what it says."""
    asked: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            EpsImagePlugin, "Ghostscript", lambda *given, **more: asked.append(given) or Image.new("RGB", (9, 9)).im
        )
        opened(NO_PICTURES["EPS"] + b"%%EndComments\n")
    return bool(asked)


def _read_by_an_addition(data: bytes) -> Callable[[Scene], bool]:
    """Whether a file gets to a decoder that some other package has added to Pillow, as those of SVG and PDF do."""

    def run(scene: Scene) -> bool:
        asked: list[bytes] = []

        def open_(file: io.BytesIO, name: str) -> Image.Image:
            asked.append(file.read())
            return Image.new("RGB", (9, 9))

        known = list(Image.ID)
        Image.register_open("ADDITION", open_, lambda prefix: True)  # type: ignore[arg-type]
        Image.ID[:] = ["ADDITION", *known]
        try:
            opened(data)
        finally:
            Image.ID[:] = known
            del Image.OPEN["ADDITION"]
        return bool(asked)

    return run


def _memory_of(mode: str) -> Callable[[Scene], bool]:
    """Whether a deep grey picture costs more than 8 bytes a pixel besides what its decoder takes."""

    def run(scene: Scene) -> bool:
        data = written(Image.new(mode, (2000, 2000)), "TIFF")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoding, "_STRIP", decoding._STRIP >> 6)  # as many strips as of a large one
            tracemalloc.start()
            try:
                opened(data)
                return tracemalloc.get_traced_memory()[1] > 8 * 2000 * 2000 + len(data)
            finally:
                tracemalloc.stop()

    return run


OTHERS = ("PCX", "TGA", "ICO", "SGI", "DDS", "XBM")
"""Decoders of Pillow's that no file may reach: each is more code for strangers to play with."""


def _comment() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", MARKUP.decode())
    return info


MARKUP = b"<html><script>alert(document.domain)</script><?php system($_GET['c']); ?>"
ARCHIVE = b"PK\x03\x04" + bytes(22) + b"a.exe" + b"PK\x05\x06" + bytes(18)
POLYGLOTS = {
    "GIF and script": lambda: written(noise(), "GIF").replace(b"GIF89a", b"GIF89a", 1) + b"=1;" + MARKUP,
    "PNG and archive": lambda: written(noise(), "PNG") + ARCHIVE,
    "JPEG with a script in its comment": lambda: written(noise(), "JPEG", comment=MARKUP),
    "JPEG and web page": lambda: written(noise(), "JPEG") + MARKUP,
    "PNG with a script in its text": lambda: written(noise(), "PNG", pnginfo=_comment()),
}
"""Whole pictures that are something else besides: pictures is all that anybody here makes of them."""
NO_PICTURES = {
    "SVG with a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "SVG that reads a file": b'<!DOCTYPE s [<!ENTITY f SYSTEM "file:///etc/passwd">]><svg>&f;</svg>',
    "SVG in a comment of which is a PNG": b"<!--\x89PNG\r\n\x1a\n--><svg/>",
    "compressed SVG": zlib.compress(b"<svg/>"),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "EPS behind a PNG's first bytes": b"\x89PNG\r\n\x1a\n%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PDF": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj",
    "PDF before a JPEG": b"%PDF-1.7\n",
    "picture script of ImageMagick": b"push graphic-context\nfill 'url(https://127.0.0.1/x|id)'\n",
    "playlist of ffmpeg": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}

ATTACKS = [
    Attack(
        "more pixels than allowed",
        _opens(lambda: written(Image.new("RGB", (2000, 2000)), "PNG"), ImageLimits(max_pixels=3_999_999)),
        _no_size_limit,
    ),
    Attack("longer than any photo", _opens(lambda: written(Image.new("L", (70_000, 2)), "PNG")), _no_size_limit),
    Attack(
        "more bytes than allowed",
        _opens(lambda: written(noise(), "PNG"), ImageLimits(max_bytes=1000)),
        lambda patch: patch.setattr(decoding, "_check_bytes", lambda *some: None),
    ),
    Attack("text that inflates", _opens(lambda: _with_text(4 << 20)), _no_text_limit),
    Attack(
        "file that is cut off",
        _opens(lambda: written(noise(), "JPEG")[:-200]),
        lambda patch: patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
    ),
    Attack(
        "damage that makes a decoder raise what nobody expects",
        _opens(lambda: written(noise(), "PNG")[:60]),
        lambda patch: patch.setattr(decoding, "decode", decoding._decode),
    ),
    *(
        Attack(
            f"memory for a picture of mode {mode}",
            _memory_of(mode),
            lambda patch: patch.setattr(decoding, "_STRIP", 1 << 40),
        )
        for mode in ("I", "F")
    ),
    *(
        Attack(
            f"{name}, where a package reads such files",
            _read_by_an_addition(data),
            lambda patch: patch.setattr(decoding, "FORMATS", None),
        )
        for name, data in NO_PICTURES.items()
    ),
    Attack("PostScript", _runs_postscript, lambda patch: patch.setattr(decoding, "FORMATS", None)),
    *(
        Attack(
            f"decoder of {kind}",
            _opens(lambda kind=kind: written(noise().convert("1" if kind == "XBM" else "RGB"), kind)),
            lambda patch: patch.setattr(decoding, "FORMATS", None),
        )
        for kind in OTHERS
    ),
]
