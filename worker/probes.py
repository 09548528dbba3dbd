"""Many simple boxes from one set of maps: what each map, threshold and quantile alone would say.

No single one of them is a good box, but how they lie to each other tells where the object ends: the tight ones show
its most telling part, the wide ones its surroundings. `worker.regression` weighs them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.floating]

UNION = (0.1, 0.2, 0.35, 0.5, 0.7)
"""Thresholds of the boxes around all hot cells of the heat map."""
REGION = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Thresholds of the boxes around its strongest connected region."""
QUANTILES = ((1, (0.02, 0.1, 0.25)), (2, (0.02, 0.1, 0.25)), (4, (0.1, 0.4)))
"""(power, shares): boxes that leave out this share of the heat map's power on every side."""
SOURCE_UNION = (0.15, 0.3, 0.5)
SOURCE_QUANTILES = (0.02, 0.1, 0.25)
"""The same of every single source."""
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def count(sources: int) -> int:
    """Number of probe boxes for this many sources."""
    own = len(UNION) + len(REGION) + sum(len(shares) for _, shares in QUANTILES)
    return own + sources * (len(SOURCE_UNION) + len(SOURCE_QUANTILES))


def probe_boxes(heat: Floats, sources: Sequence[Floats]) -> Floats:
    """Probe boxes (R, K, 4) in fractions of the image, K = `count(len(sources))`.

    `heat` (R, g, g) and each source (R, g, g) have values ≥ 0. Rows without any heat get boxes of the whole image.
    """
    found = [union_boxes(heat, threshold) for threshold in UNION]
    found += [union_boxes(_strongest(heat, threshold), threshold) for threshold in REGION]
    for power, shares in QUANTILES:
        found += _quantile_boxes(heat**power, shares)
    for source in sources:
        found += [union_boxes(source, threshold) for threshold in SOURCE_UNION]
        found += _quantile_boxes(source, SOURCE_QUANTILES)
    return np.stack(found, axis=1)


def union_boxes(heat: Floats, threshold: float) -> Floats:
    """`boxes.hot_box` of every row at once: (R, g, g) → (R, 4); the whole image where nothing is hot."""
    level = threshold * heat.max(axis=(1, 2))
    x0, x1 = _extents(heat.max(axis=1), level)
    y0, y1 = _extents(heat.max(axis=2), level)
    return np.stack([x0, y0, x1, y1], axis=1)


def _extents(profiles: Floats, levels: Floats) -> tuple[Floats, Floats]:
    rows, size = np.arange(len(profiles)), profiles.shape[1]
    hot = profiles >= levels[:, None]
    first, last = hot.argmax(1), size - 1 - hot[:, ::-1].argmax(1)
    start = first + 0.5 - _steps(profiles[rows, first], profiles[rows, np.maximum(first - 1, 0)], levels)
    end = last + 0.5 + _steps(profiles[rows, last], profiles[rows, np.minimum(last + 1, size - 1)], levels)
    return np.where(first == 0, 0.0, start) / size, np.where(last == size - 1, size, end) / size


def _steps(hot: Floats, cold: Floats, levels: Floats) -> Floats:
    steep = hot > cold
    return np.asarray(np.where(steep, (hot - levels) / np.where(steep, hot - cold, 1.0), 0.5))


def _strongest(heat: Floats, threshold: float) -> Floats:
    """The heat of every row without all other hot regions than the one with most heat, and what surrounds it."""
    kept = heat.copy()
    for row, values in enumerate(heat):
        labels, regions = ndimage.label(values >= threshold * values.max(), structure=_NEIGHBOURS)
        if regions > 1:
            mass = ndimage.sum_labels(values, labels, np.arange(1, regions + 1))
            own = labels == 1 + int(np.argmax(mass))
            near = ndimage.binary_dilation(own, structure=_NEIGHBOURS)
            kept[row] = np.where(near & (own | (labels == 0)), values, 0.0)
    return kept


def _quantile_boxes(heat: Floats, shares: Sequence[float]) -> list[Floats]:
    x = _quantiles(heat.sum(axis=1), shares)
    y = _quantiles(heat.sum(axis=2), shares)
    last = len(shares)
    return [np.stack([x[k], y[k], x[last + k], y[last + k]], axis=1) for k in range(last)]


def _quantiles(profiles: Floats, shares: Sequence[float]) -> list[Floats]:
    """Where each share of a profile's mass lies below, then where it lies above; linear within a cell."""
    profiles = profiles.astype(np.float64) + 1e-9
    size = profiles.shape[1]
    mass = np.concatenate([np.zeros((len(profiles), 1)), profiles.cumsum(1)], axis=1)
    mass /= mass[:, -1:]
    rows = np.arange(len(profiles))
    found = []
    for share in [*shares, *(1 - share for share in shares)]:
        cell = np.minimum((mass <= share).sum(1) - 1, size - 1)
        low, high = mass[rows, cell], mass[rows, cell + 1]
        found.append((cell + (share - low) / (high - low)) / size)
    return found
