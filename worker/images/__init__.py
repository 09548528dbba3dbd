"""Photos: `fetch` bytes from allowed places, `decode` them safely, make them a network's input.

    address ──fetch──► bytes ──decode──► Photo (upright RGB and its true size) ──to_tensor──► (3, H, W)

Fetching never looks inside a file, and decoding never touches the network or the disk.
"""

from worker.images.decode import ImageLimits, Photo, decode
from worker.images.fetch import FetchPolicy, fetch
from worker.images.tensor import to_tensor

__all__ = ["FetchPolicy", "ImageLimits", "Photo", "decode", "fetch", "to_tensor"]
