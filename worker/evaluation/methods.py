"""Other ways to draw a box, to stand beside ours on the same photos. `names` says how each was read.

All but the centred boxes make heat maps that are thresholded; where the publication leaves the threshold open or
tuned it to its own data, every method gets the one that suits the photos best in hindsight (MaxBoxAcc).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from worker.boxes import as_box
from worker.engines import Engine, make_attributor
from worker.evaluation import explainers
from worker.evaluation.explainers import Explain, choice
from worker.evaluation.metrics import Found, Outcome
from worker.evaluation.names import NOTES, OTHERS
from worker.evaluation.run import Run
from worker.heatmap import heat
from worker.images import Photo, to_tensor
from worker.localizer import Allowed, named_maps
from worker.networks import Network
from worker.parameters import DEEPLIFT, GUIDED, PAPER, Parameters, Source
from worker.probes import union_boxes

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)

_SHARP = (Source(DEEPLIFT, sigma=0.02), Source(GUIDED, sigma=0.02))
SETTINGS: Mapping[str, Parameters] = {
    "paper, no mask": replace(PAPER, border_kind="none"),
    "paper": PAPER,
    "paper, less blur": replace(PAPER, sources=_SHARP),
}
"""The three settings of one pipeline by which we read the panels of the paper's figure."""
PIXELS: Mapping[str, Parameters] = {
    **SETTINGS,
    "DeepLIFT alone": replace(PAPER, sources=(Source(DEEPLIFT, sigma=0.04),)),
    "guided alone": replace(PAPER, sources=(Source(GUIDED, sigma=0.04),)),
}
"""Everything that is made of the two maps at the pixels: one pass serves all."""


@dataclass(frozen=True)
class Centred:
    """The middle of the image, without looking."""

    side: float = 0.8

    @property
    def name(self) -> str:
        return f"centred {self.side:.0%}"

    def __call__(self, photos: Sequence[Photo], classes: Sequence[Allowed]) -> list[tuple[Found, ...]]:
        low, high = (1 - self.side) / 2, (1 + self.side) / 2
        return [(Found((low, low, high, high)),)] * len(photos)

    def runs(self, run: Run) -> list[Run]:
        """The run, with its note."""
        return [replace(run, note=NOTES[self.name])]


@dataclass(frozen=True)
class Thresholded:
    """Heat maps of one or more methods that share their passes; boxes at each of `THRESHOLDS`, method by method.

    `runs` makes of a run of all of them one for each method, at its best threshold. Their time is that of all.
    """

    names: tuple[str, ...]
    network: Network
    explain: Explain
    """Returns a map for each name."""

    @property
    def name(self) -> str:
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} and {len(self.names) - 1} more"

    def __call__(self, photos: Sequence[Photo], classes: Sequence[Allowed]) -> list[tuple[Found, ...]]:
        """Boxes of all methods at all thresholds, in their order, for the predicted class or the one that is named.

        Raises ValueError where several classes compete, or only some photos' classes are named.
        """
        inputs = torch.stack([to_tensor(photo, self.network.preprocessing) for photo in photos])
        targets, maps = self.explain(inputs, _targets(classes))
        drawn = []
        for one in maps:
            values = one.detach().float().clamp_min(0).cpu().numpy()
            drawn += [union_boxes(values, threshold) for threshold in THRESHOLDS]
        return [
            tuple(
                Found(as_box(boxes[row]), class_index=target, label=self.network.classes[target]) for boxes in drawn
            )
            for row, target in enumerate(targets.tolist())
        ]

    def runs(self, run: Run) -> list[Run]:
        """One run for each method, named with the threshold that was best."""
        done = []
        for place, name in enumerate(self.names):
            part = slice(place * len(THRESHOLDS), (place + 1) * len(THRESHOLDS))
            threshold, outcomes = settle([_cut(one, part) for one in run.outcomes])
            done.append(replace(run, method=name, outcomes=outcomes, threshold=threshold, note=NOTES[name]))
        return done


def settle(outcomes: Sequence[Outcome]) -> tuple[float, tuple[Outcome, ...]]:
    """The threshold with most right boxes over all photos, in hindsight, and every photo's box at that one."""
    kept = [tuple(_cut(one, slice(place, place + 1)) for one in outcomes) for place in range(len(THRESHOLDS))]
    worth = [float(np.mean([one.best_iou >= 0.5 for one in some] or [False])) for some in kept]
    best = int(np.argmax(worth))
    return THRESHOLDS[best], kept[best]


def others(
    network: Network,
    without: Collection[str] = (),
    *,
    precision: torch.dtype | None = None,
    left_out: MutableMapping[str, str] | None = None,
) -> Iterator[Centred | Thresholded]:
    """Every method that can run with this network, made when its turn comes: none holds memory for the others.

    `without` names those of `OTHERS` that nobody wants. precision: of our own engine, which the paper's pipeline
    runs on; the packages' methods compute in float32. What cannot run is put into `left_out`, with the reason.
    """
    for side in (0.7, 0.8, 1.0):
        if Centred(side).name not in without:
            yield Centred(side)
    groups: list[tuple[tuple[str, ...], Callable[[tuple[str, ...]], Explain]]] = [
        (tuple(PIXELS), lambda names: _pixels(network, names, precision)),
        *[((name,), functools.partial(_cam, network)) for name in explainers.CAMS],
        (("captum DeepLIFT, stock",), lambda _: explainers.stock_deeplift(network)),
        (("predecessor",), lambda _: explainers.predecessor(network)),
    ]
    for names, make in groups:
        wanted = tuple(name for name in names if name not in without)
        if not wanted:
            continue
        try:
            method = Thresholded(wanted, network, make(wanted))
        except Exception as error:  # noqa: BLE001 - of packages that may raise anything: the others go on
            if left_out is not None:
                left_out.update(dict.fromkeys(wanted, reason(error)))
        else:
            yield method


def reason(error: Exception) -> str:
    """Why a method was left out, in one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _cam(network: Network, names: tuple[str, ...]) -> Explain:
    return explainers.cam(network, names[0])


def _pixels(network: Network, names: Sequence[str], precision: torch.dtype | None) -> Explain:
    attribute: Engine = make_attributor(network, precision=precision)

    def explain(inputs: Tensor, asked: Sequence[int] | None) -> tuple[Tensor, Sequence[Tensor]]:
        found = attribute(inputs, choice(asked))
        maps = named_maps(found)
        return found.targets, [heat(maps, PIXELS[name]) for name in names]

    return explain


def _cut(outcome: Outcome, part: slice) -> Outcome:
    known = None if outcome.known is None else outcome.known[part]
    return replace(outcome, found=outcome.found[part], known=known)


def _targets(classes: Sequence[Allowed]) -> list[int] | None:
    if all(one is None for one in classes):
        return None
    targets = [one[0] for one in classes if one is not None and len(one) == 1]
    if len(targets) != len(classes):
        raise ValueError("either every photo's class is named, one for each, or none's")
    return targets


__all__ = ["OTHERS", "PIXELS", "SETTINGS", "THRESHOLDS", "Centred", "Thresholded", "others", "reason", "settle"]
