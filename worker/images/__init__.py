"""Photos: `fetch` bytes from allowed places, `decode` them safely, make them a network's input.

    address ──fetch──► bytes ──decode──► Photo (upright RGB and its true size) ──to_tensor──► (3, H, W)

Fetching never looks inside a file, and decoding never touches the network or the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.images.decode import ImageLimits, Photo, decode
from worker.images.fetch import FetchPolicy, fetch

if TYPE_CHECKING:
    from worker.images.tensor import to_tensor

__all__ = ["FetchPolicy", "ImageLimits", "Photo", "decode", "fetch", "to_tensor"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and only `to_tensor` needs it.
    if name == "to_tensor":
        from worker.images.tensor import to_tensor

        return to_tensor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
