"""Every number between a network's contributions and a box, in one frozen value."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

from worker.contract import digest

DEEPLIFT = "deeplift"
GUIDED = "guided"
"""Names of the two maps at the pixels; every other source is the path of an inner layer."""


@dataclass(frozen=True, slots=True)
class Source:
    """One map that goes into the heat map."""

    name: str
    """`deeplift` or `guided` (at the pixels), or the path of an inner layer: DeepLIFT's contributions there."""
    weight: float = 1.0
    """Its share in the mix; the shares need not sum to 1."""
    sigma: float = 0.03
    """Width of the Gaussian that smooths it, as a fraction of the image's side."""
    part: str = "positive"
    """`positive` keeps what speaks for the class; `absolute` counts what speaks against it as well."""


@dataclass(frozen=True, slots=True)
class Regression:
    """Weights that make one box of K probe boxes: see `worker.regression`."""

    centre: tuple[float, ...]
    """(K,) of the probes' centres."""
    own_side: tuple[float, ...]
    other_side: tuple[float, ...]
    """(K,) of the logarithms of the probes' sides: along the same axis, and across."""
    down: float
    """How much lower than the weighted centre the box's centre lies, as a fraction of the height."""
    width: float
    height: float
    """Constants of the logarithms of width and height."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of the logistic function that scores a box: see `worker.regression.signs`."""

    weights: tuple[float, ...]
    bias: float


@dataclass(frozen=True, slots=True)
class Parameters:
    """How maps become a heat map, a heat map becomes boxes, and boxes get a score."""

    sources: tuple[Source, ...] = (Source(DEEPLIFT, sigma=0.04), Source(GUIDED, sigma=0.04))
    reference: str = "mean"
    """What DeepLIFT compares the photo with: `mean` (grey of the training set), `black` or `blur`."""
    grid: int = 56
    """Side of the heat map, in cells. Edges lie between cells: see `boxes.hot_box`."""
    mix: str = "geometric"
    """`geometric` (hot in every source) or `arithmetic` (hot in any)."""
    border: float = 0.6
    """Border mask: the weight 1 - border · r², r = 1 in the corners, or for a hard mask its width."""
    border_kind: str = "soft"
    """`soft`, `hard` (cells within `border` of an edge count nothing) or `none`."""
    threshold: float = 0.2
    """A cell is hot from this fraction of the heat map's maximum."""
    splits: tuple[float, ...] = (0.3, 0.5)
    """Where several boxes are wanted: regions are apart where the heat between them falls below one of these."""
    part_threshold: float = 0.45
    """A cell of such a region is hot from this fraction of the region's own maximum."""
    class_share: float = 0.02
    """Where several boxes are wanted: further classes take part from this share of the best one's probability."""
    most_classes: int = 5
    """But no more classes than these: each costs a backward pass."""
    class_weight: float = 0.25
    """Scores of further classes are multiplied by (their probability / the best one's) to this power."""
    part_score: float = 0.8
    """Boxes of single regions score at most this share of what the whole map's box does."""
    extra_score: float = 0.05
    """Every box but an image's first needs at least this score."""
    overlap: float = 0.5
    """Of two boxes that overlap more than this (IoU), only the better one stays."""
    regression: Regression | None = None
    """Makes the box from probe boxes; without it the box is the thresholded heat map's."""
    calibration: Calibration | None = None
    """Makes the score; without it the score is the class's probability."""
    lean: float = 0.0
    """The only box of an image is centred on the map's hottest place where it scores less than this, and leans
    towards it above: see `worker.leaning`. 0: it stays where it was drawn."""
    extra: Calibration | None = None
    """Makes the score of every box but an image's first, from `worker.scoring.extra_signs`. Without it these scores
    are made of what whole maps' boxes would score, by `class_weight` and `part_score`."""

    @property
    def digest(self) -> str:
        """Short name of these values: equal parameters, equal digest."""
        return digest(self.to_dict())

    @property
    def layers(self) -> tuple[str, ...]:
        """The inner layers among the sources."""
        return tuple(s.name for s in self.sources if s.name not in (DEEPLIFT, GUIDED))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The value back. Raises TypeError for unknown fields."""
        values = data | {"sources": tuple(Source(**source) for source in data["sources"])}
        if "splits" in values:
            values["splits"] = tuple(values["splits"])
        for name, kind in (("regression", Regression), ("calibration", Calibration), ("extra", Calibration)):
            if values.get(name) is not None:
                values[name] = kind(**{key: _frozen(value) for key, value in values[name].items()})
        return cls(**values)

    @classmethod
    def of(cls, network: str, layers: Sequence[str] = ()) -> Self:
        """The measured values of a network of the catalogue.

        A network that nobody has measured gets a mixture of its last two `layers` and guided backpropagation.
        """
        stored = resources.files("worker.networks") / "parameters" / f"{network}.json"
        if stored.is_file():
            return cls.from_dict(json.loads(stored.read_text(encoding="utf-8")))
        inner = tuple(Source(name, sigma=0.03) for name in layers[:2])
        return cls(sources=(*inner, Source(GUIDED, sigma=0.04)))


def _frozen(value: Any) -> Any:
    return tuple(float(one) for one in value) if isinstance(value, list | tuple) else float(value)


PAPER = Parameters(
    sources=(Source(DEEPLIFT, sigma=0.04), Source(GUIDED, sigma=0.04)),
    mix="arithmetic",
    border=0.1,
    border_kind="hard",
    threshold=0.2,
)
"""The pipeline as published: pixel maps, a hard border mask, the union of all hot pixels."""
