"""From heat maps to boxes: one of each map, and where several are wanted one of each of its regions as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.boxes import Floats, as_box
from worker.heatmap import border_mask
from worker.parameters import Parameters
from worker.parts import Found, Part, regions
from worker.probes import probe_boxes, union_boxes
from worker.regression import regress


def draw(sources: Sequence[Floats], heats: Floats, parameters: Parameters, *, several: bool) -> list[Found]:
    """The boxes of every row that has any heat: those of whole maps, in the rows' order, then those of regions.

    sources: the prepared maps (R, g, g) of every row; heats (R, g, g): what they mix to.
    """
    hot = [row for row, heat in enumerate(heats) if heat.max() > 0]
    if not hot:
        return []
    found = _whole(hot, sources, heats, parameters)
    if several:
        parts = [(row, part) for row in hot for split in parameters.splits for part in regions(heats[row], split)]
        found += _regions(parts, sources, heats, parameters)
    return found


def _whole(rows: list[int], sources: Sequence[Floats], heats: Floats, parameters: Parameters) -> list[Found]:
    local = _up_to_one(heats[rows])
    mask = _mask(parameters)
    probes = probe_boxes(local, [source[rows] * mask for source in sources])
    if parameters.regression is not None:
        drawn = regress(probes, parameters.regression)
    else:
        drawn = union_boxes(local, parameters.threshold)
    return [
        Found(row, as_box(box), heat, probe, None)
        for row, box, heat, probe in zip(rows, drawn, local, probes, strict=True)
    ]


def _regions(
    parts: Sequence[tuple[int, Part]], sources: Sequence[Floats], heats: Floats, parameters: Parameters
) -> list[Found]:
    """The regression knows whole images: what is left of a map beside other objects has hard edges of its own."""
    if not parts:
        return []
    rows = [row for row, _ in parts]
    cells = np.stack([part.cells for _, part in parts])
    local = _up_to_one(heats[rows] * cells)
    drawn = union_boxes(local, parameters.part_threshold)
    probes: Sequence[Floats | None] = [None] * len(parts)
    if parameters.extra is None:
        mask = _mask(parameters)
        probes = list(probe_boxes(local, [source[rows] * mask * cells for source in sources]))
    items = zip(parts, drawn, local, probes, strict=True)
    return [Found(row, as_box(box), heat, probe, part) for (row, part), box, heat, probe in items]


def _up_to_one(heats: Floats) -> Floats:
    return np.asarray(heats / heats.max(axis=(1, 2), keepdims=True))


def _mask(parameters: Parameters) -> Floats:
    return np.asarray(border_mask(parameters.grid, parameters.border, parameters.border_kind).numpy())
