"""How sure are figures? Photos drawn again with replacement, the same draws for every method.

Because all methods meet the same draws, a difference of two methods can be taken draw by draw (paired): what makes
photos hard for both of them falls out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from worker.evaluation.metrics import Columns, Floats

ROUNDS = 1000
_CELLS = 4_000_000
"""Counts that are held at once: 32 MB."""

Draws = Mapping[str, Floats]
"""Name of a figure → its value (R,) in every draw; NaN where a draw says nothing about it."""


def draws(columns: Columns, rounds: int = ROUNDS) -> dict[str, Floats]:
    """Every figure of `rounds` draws of as many photos as there are; the same draws for as many photos."""
    photos = len(next(iter(columns.parts.values())))
    parts = [columns.resampled(counts) for counts in _counts(photos, rounds)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Floats) -> tuple[float, float] | None:
    """The middle 95 % of a figure's draws; None where no draw says anything."""
    some = values[~np.isnan(values)]
    if not len(some):
        return None
    low, high = np.quantile(some, (0.025, 0.975))
    return float(low), float(high)


def intervals(drawn: Draws) -> dict[str, tuple[float, float]]:
    """The intervals of all figures that have one."""
    found = {name: interval(values) for name, values in drawn.items()}
    return {name: spread for name, spread in found.items() if spread is not None}


def differences(ours: Draws, other: Draws, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """95 % intervals of ours minus the other's, draw by draw: a gain is sure where both ends are above 0."""
    return intervals({name: ours[name] - other[name] for name in names})


def ratio(ours: Floats, other: Floats) -> tuple[float, float] | None:
    """95 % interval of ours over the other's, draw by draw."""
    return interval(np.where(other > 0, ours / np.where(other > 0, other, 1.0), np.nan))


def compared(ours: Mapping[str, Any], other: Mapping[str, Any], mine: Draws, theirs: Draws) -> dict[str, Any]:
    """Ours beside another method's figures: differences of corloc and mean IoU, ratio of F1, each with its
    interval."""
    spread = differences(mine, theirs, ("corloc", "mean_iou"))
    gains = {
        name: {"value": ours[name] - other[name], "interval": spread[name]}
        for name in ("corloc", "mean_iou")
        if name in spread and ours[name] is not None and other[name] is not None
    }
    f1 = ratio(mine["f1_agnostic"], theirs["f1_agnostic"])
    times = None
    if f1 is not None and other["f1_agnostic"]:
        times = {"value": ours["f1_agnostic"] / other["f1_agnostic"], "interval": f1}
    return {"ours_minus": gains, "f1_ratio": times}


def _counts(photos: int, rounds: int) -> Iterator[Floats]:
    """How often each photo is in each draw, (r, photos) at a time."""
    rng = np.random.default_rng(0)
    block = max(1, _CELLS // photos)
    for start in range(0, rounds, block):
        size = min(block, rounds - start)
        yield rng.multinomial(photos, np.full(photos, 1 / photos), size=size).astype(np.float64)
