"""What a GPU needs to be fast and exact. On a processor nothing of it does anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def upload(images: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Images (N, C, H, W) where they are computed, in channels_last layout.

    To a GPU they are copied out of pinned memory, which the processor does not wait for. Their number format
    changes there, where that costs nothing.
    """
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last).pin_memory().to(device, non_blocking=True)
    return images.to(device, dtype).contiguous(memory_format=torch.channels_last)


@contextmanager
def all_digits(device: torch.device) -> Iterator[None]:
    """float32 with 24 bits: GPUs drop 13 of them (TF32) in convolutions unless told otherwise."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory is what a GPU lacked. cuBLAS and cuDNN say so in words of their own."""
    return isinstance(error, torch.OutOfMemoryError) or "STATUS_ALLOC_FAILED" in str(error)
