"""How far the boxes of the default precision agree with those of float32, on a folder of photos.

    python -m scripts.precision_agreement PHOTOS [--network NAME] [--weights FILE] [--limit N]

Prints one JSON object: mean IoU of the best boxes, the share of photos with IoU of at least 0.9, and the share with
the same class. Photos where only one precision finds a box count as IoU 0.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch

from worker.boxes import iou
from worker.contract import Detection
from worker.images import Photo, decode
from worker.localizer import BATCH, Localizer
from worker.networks import load_network

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@click.command
@click.argument("photos", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--network", default="vgg16", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Local state dict for it.")
@click.option("--limit", type=click.IntRange(1), help="Only so many photos, from the first.")
def main(photos: Path, network: str, weights: Path | None, limit: int | None) -> None:
    """Compare the boxes of two precisions on all photos in a folder and below."""
    loaded = load_network(network, weights=weights)
    exact, default = Localizer(loaded, precision=torch.float32), Localizer(loaded)
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)[:limit]
    overlaps: list[float] = []
    same: list[bool] = []
    for batch in _batches(files):
        pairs = zip(exact.localize(batch), default.localize(batch), strict=True)
        for one, other in pairs:
            if not one and not other:
                continue
            overlaps.append(_overlap(one, other))
            same.append(bool(one and other) and one[0].class_index == other[0].class_index)
    figures = {
        "network": network,
        "photos": len(files),
        "with_boxes": len(overlaps),
        "mean_iou": statistics.fmean(overlaps),
        "lowest_iou": min(overlaps),
        "iou_at_least_90": statistics.fmean(overlap >= 0.9 for overlap in overlaps),
        "same_class": statistics.fmean(same),
        "mean_iou_of_same_class": statistics.fmean(o for o, equal in zip(overlaps, same, strict=True) if equal),
    }
    click.echo(json.dumps(figures))


def _batches(files: list[Path]) -> Iterator[list[Photo]]:
    for start in range(0, len(files), BATCH):
        yield [decode(path.read_bytes(), name=path.name) for path in files[start : start + BATCH]]


def _overlap(one: list[Detection], other: list[Detection]) -> float:
    return float(iou(np.array(one[0].box), np.array(other[0].box))[0, 0]) if one and other else 0.0


if __name__ == "__main__":
    main()
