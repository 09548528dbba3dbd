"""Photos a second, from decoded photo to boxes: ours beside torchvision's detectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torchvision.transforms.functional import pil_to_tensor

from worker.images import Photo
from worker.localizer import Localizer
from worker.networks import Network

DETECTORS = ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")


def measure_detectors(
    network: Network, photos: Sequence[Photo], *, repeat: int = 3, precision: torch.dtype | None = None
) -> dict[str, Any]:
    """Best rate of `repeat` turns for each.

    The detectors' weights are random: the time does not depend on them but for the few boxes that survive.
    They compute in float32, in torchvision's own image size; ours at `precision`, or the one that suits the device.
    """
    from torchvision.models import get_model

    device = next(network.module.parameters()).device
    localizer = Localizer(network, precision=precision)
    eight = [photos[number % len(photos)] for number in range(8)]
    runs: dict[str, tuple[Callable[[], object], int]] = {network.name: (lambda: localizer.localize(eight), 8)}
    for name in DETECTORS:
        torch.manual_seed(0)
        detector = get_model(name, weights=None, weights_backbone=None).eval().to(device)
        runs[name] = (lambda detector=detector: _detect(detector, eight[:2], device), 2)  # type: ignore[misc]
    rates = dict.fromkeys(runs, 0.0)
    for turn in range(repeat + 1):
        for name, (run, count) in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                rates[name] = max(rates[name], count / (time.perf_counter() - start))
    note = (
        "photo to boxes; the detectors' weights are random, so their boxes mean nothing, only their time does, and "
        "they have few boxes to sort out; they compute in float32; ours classifies too"
    )
    return {"images_per_s": rates, "note": note}


def _detect(
    detector: Callable[[list[torch.Tensor]], object], photos: Sequence[Photo], device: torch.device
) -> object:
    with torch.inference_mode():
        return detector([pil_to_tensor(photo.image).to(device).float() / 255 for photo in photos])
