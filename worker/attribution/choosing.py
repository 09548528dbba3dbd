"""Which classes of which images are mapped back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Choice: TypeAlias = Tensor | Callable[[Tensor], tuple[Tensor, Tensor]]
"""Classes (N,), one for each image; or a function from logits (N, C) to rows (R,) and classes (R,)."""


def chosen(choose: Choice, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The image (R,) and the class (R,) of each row, beside the logits (N, C).

    Raises ValueError for rows or classes that do not fit.
    """
    count, classes = logits.shape
    if isinstance(choose, Tensor):
        rows, targets = torch.arange(count), choose
    else:
        rows, targets = choose(logits)
    rows, targets = rows.to(logits.device, torch.int64), targets.to(logits.device, torch.int64)
    if rows.shape != targets.shape or rows.dim() != 1:
        raise ValueError(f"rows {tuple(rows.shape)} and classes {tuple(targets.shape)} must both be (R,)")
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= count):
        raise ValueError(f"rows name images outside 0…{count - 1}")
    if len(rows) and (int(targets.min()) < 0 or int(targets.max()) >= classes):
        raise ValueError(f"classes must lie in 0…{classes - 1}")
    return rows, targets


def check_images(images: Tensor, size: tuple[int, int]) -> None:
    """Raises ValueError unless there are images, (N, 3, H, W) of that size."""
    if images.dim() != 4 or images.shape[1] != 3 or tuple(images.shape[2:]) != size:
        raise ValueError(f"images have shape {tuple(images.shape)}, not (N, 3, {size[0]}, {size[1]})")
    if not len(images):
        raise ValueError("there are no images: at least one is needed")
