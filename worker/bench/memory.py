"""Peak memory of a worker's computation, above its loaded weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from worker.images import Photo
from worker.localizer import Localizer
from worker.networks import Network

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
MIB = 1 << 20


def measure_memory(
    network: Network, photos: Sequence[Photo], batch: int = 8, *, precision: torch.dtype | None = None
) -> float | None:
    """MiB that a localizer with `network` needs for a batch of photos beyond what is there before it is made.

    Its own copies of the weights count. For a process that has done nothing else; None where the system does not
    tell.
    """
    device = next(network.module.parameters()).device
    chosen = [photos[number % len(photos)] for number in range(batch)]
    before = peak(device, reset=True)
    localizer = Localizer(network, precision=precision)
    for _ in range(3):
        localizer.localize(chosen)
    return mib_between(before, peak(device))


def mib_between(before: int | None, after: int | None) -> float | None:
    """How many MiB more; None where the system does not tell."""
    return None if before is None or after is None else round((after - before) / MIB, 1)


def peak(device: torch.device, *, reset: bool = False) -> int | None:
    """Largest memory use so far in bytes: of the GPU if it is one, else resident. With `reset`, from now on."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.max_memory_allocated(device))
    try:
        if reset:
            _RESET.write_text("5", encoding="ascii")
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="ascii"))
    except OSError:
        return None
    return None if found is None else int(found[1]) << 10
