"""Photos with known boxes, as one set of parameters sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from worker.boxes import Floats
from worker.heatmap import border_mask, combine, prepare
from worker.learning.maps import Integers, Maps
from worker.parameters import Parameters
from worker.probes import probe_boxes
from worker.regression import certainty


@dataclass(frozen=True)
class Study:
    """Everything about N photos that learning needs, at one class each."""

    truths: list[Floats]
    """True boxes (M, 4) of each, M ≥ 1, in fractions of the image."""
    probes: Floats
    """(N, K, 4)"""
    heat: Floats
    """(N, g, g)"""
    sure: Floats
    """(N, 6), see `worker.regression.certainty`."""
    own: Floats
    """(N,) probability of the class, to compare the score with."""

    def __len__(self) -> int:
        return len(self.truths)

    def take(self, photos: Sequence[int] | Integers) -> Study:
        """Those of some photos, by number."""
        return Study(
            [self.truths[photo] for photo in photos],
            self.probes[photos],
            self.heat[photos],
            self.sure[photos],
            self.own[photos],
        )


def study(maps: Maps, parameters: Parameters, truths: Sequence[Floats]) -> Study:
    """What the parameters make of the maps of photos with these true boxes."""
    named = {s.name: torch.from_numpy(maps.sources[s.name].astype(np.float32)) for s in parameters.sources}
    sources = prepare(named, parameters)
    heat = combine(sources, parameters).numpy()
    mask = border_mask(parameters.grid, parameters.border, parameters.border_kind).numpy()
    logits = torch.from_numpy(maps.logits).double()
    rows = np.arange(len(logits))
    return Study(
        truths=list(truths),
        probes=probe_boxes(heat, [source.numpy() * mask for source in sources]),
        heat=heat,
        sure=certainty(logits.numpy(), rows.tolist(), maps.targets.tolist()),
        own=logits.softmax(1).numpy()[rows, maps.targets],
    )
