"""What people choose from in settings and commands, which ask before torch is loaded."""

from __future__ import annotations

ENGINES = ("boxlift", "captum")
"""What computes the maps: see `worker.engines`."""
PRECISIONS = ("auto", "float32", "bfloat16")
"""In which numbers: see `worker.attribution.precision`. `auto` is bfloat16 where the device is fast at it."""
