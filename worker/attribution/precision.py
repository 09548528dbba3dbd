"""Which number format to compute in: bfloat16 where the processor or GPU is fast at it, else float32."""

from __future__ import annotations

from pathlib import Path

import torch

from worker.choices import PRECISIONS
from worker.errors import SettingsError

_TYPES = dict(zip(PRECISIONS, (None, torch.float32, torch.bfloat16), strict=True))
"""None for what suits the device."""


def parse_precision(name: str) -> torch.dtype | None:
    """The number format of that name. Raises SettingsError for an unknown one."""
    if name not in PRECISIONS:
        raise SettingsError(f"precision {name!r} does not exist: it must be one of {', '.join(PRECISIONS)}")
    return _TYPES[name]


def best_precision(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 on processors with AMX and GPUs from Ampere on, else float32."""
    return torch.bfloat16 if _fast_bfloat16(torch.device(device)) else torch.float32


def describe_precision(device: torch.device | str = "cpu", chosen: torch.dtype | None = None) -> str:
    """One line for reports: the format for the device, and why. `chosen` overrides what suits the device."""
    device = torch.device(device)
    if chosen is not None:
        return f"{str(chosen).removeprefix('torch.')} (as set; {describe_precision(device)} would be chosen)"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        reason = f"{name}, compute capability {'.'.join(map(str, torch.cuda.get_device_capability(device)))}"
    else:
        reason = "AMX found" if _fast_bfloat16(device) else "no AMX: bfloat16 would be slower than float32"
    return f"{str(best_precision(device)).removeprefix('torch.')} ({reason})"


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    if supported is not None:
        return bool(supported())
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
