"""The reference: the input that means "nothing there"."""

from __future__ import annotations

import torch
from torch import Tensor


def constant_reference(
    reference: Tensor | float | str, size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """One image (1, 3, H, W), the same for all: "mean" (zeros), a number, three numbers, or whatever broadcasts."""
    if isinstance(reference, str):
        if reference != "mean":
            raise ValueError(f"reference {reference!r} is not known: use 'mean', 'blur', a number or a tensor")
        reference = 0.0
    value = torch.as_tensor(reference, dtype=dtype, device=device)
    if value.dim() == 1:
        value = value[:, None, None]
    return value.broadcast_to(1, 3, *size).contiguous(memory_format=torch.channels_last)


def blurred(images: Tensor) -> Tensor:
    """Each image's own Gaussian-blurred copy, same shape; sigma is a sixteenth of the longer side."""
    from torchvision.transforms.functional import (
        gaussian_blur,  # seconds to import, and only this reference needs it
    )

    side = max(images.shape[-2:])
    kernel = [min(side // 8 * 2 + 1, size * 2 - 1) for size in images.shape[-1:-3:-1]]
    smooth: Tensor = gaussian_blur(images, kernel_size=kernel, sigma=[side / 16] * 2)
    return smooth
