"""A photo as a network wants to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from worker.images.decode import Photo

if TYPE_CHECKING:
    from worker.networks import Preprocessing

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def to_tensor(image: Image.Image | Photo, preprocessing: Preprocessing) -> torch.Tensor:
    """The whole picture, squeezed to the network's input size and normalised: (3, H, W) float32.

    The aspect ratio is not kept and nothing is cropped, so a box in the tensor is the same box, in fractions
    of width and height, in the picture. Resizing is antialiased.
    """
    picture = image.image if isinstance(image, Photo) else image
    height, width = preprocessing.size
    picture = picture.convert("RGB").resize(
        (width, height), _FILTERS[preprocessing.interpolation], reducing_gap=3.0
    )
    values = torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1).div_(255.0)
    return preprocessing.normalise(values).contiguous()
