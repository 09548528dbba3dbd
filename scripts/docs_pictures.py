"""Make the README's pictures out of those that the browser's tests leave in artifacts/.

    python -m pytest tests/e2e/test_review_loop.py
    python scripts/docs_pictures.py

The photos in them are the demo's: backend/demo/photos/photos.json names their authors and licences.
"""

from __future__ import annotations

from pathlib import Path

import click
from PIL import Image

ROOT = Path(__file__).parent.parent
PICTURES = ("review-1-list", "review-2-draft", "review-3-corrected", "review-4-submitted")
WIDTH = 1000
MOST = 150_000
"""Bytes of one picture."""


def compact(source: Path, target: Path) -> int:
    """Write `source` as a JPEG of at most MOST bytes, as good as that allows; its size in bytes."""
    with Image.open(source) as image:
        small = image.convert("RGB").resize(
            (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
        )
    for quality in range(90, 30, -5):
        small.save(target, quality=quality, optimize=True, progressive=True)
        if target.stat().st_size <= MOST:
            break
    return target.stat().st_size


@click.command()
def main() -> None:
    """Write docs/review-*.jpg."""
    for name in PICTURES:
        target = ROOT / "docs" / f"{name}.jpg"
        size = compact(ROOT / "artifacts" / f"{name}.png", target)
        click.echo(f"{target.relative_to(ROOT)}: {size} bytes")


if __name__ == "__main__":
    main()
