"""What people's boxes of one project change: parameters, if photos that had no part in the fit come out better.

Every trial is judged by cross-validation, and which trial is best is chosen for each fold by the other folds: so
that a photo's boxes after tuning depend neither in weights nor in the choice on that photo. Gains are paired (the
same photos before and after), with intervals from bootstrapping over photos.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from worker.boxes import Floats
from worker.evaluation.metrics import auroc
from worker.heads.fitting import one_thread
from worker.learning.adapting import FORGET, Trial, adapt, known_regression
from worker.learning.calibration import score_signs
from worker.learning.figures import centred, overlaps, reliability
from worker.learning.looks import looks
from worker.learning.maps import Maps
from worker.learning.scoring import fit_score, log_loss, old_score
from worker.learning.study import Study, study
from worker.parameters import Parameters, Regression
from worker.probes import union_boxes
from worker.regression import chance, regress

if TYPE_CHECKING:
    import numpy.typing as npt

LEAST = 10
"""Photos with boxes that are needed at least: fewer cannot tell a gain from chance."""
TRUST = (math.inf, 500.0, 150.0, 50.0, 15.0, FORGET)
"""See `adapting.Trial.trust`. The first trial of all is to keep what there is."""
LOOK_TRUST, MANY = 50.0, 200
"""Where the maps are looked at in another way, the refiner that is known knows less: from this many photos on, it
is learned anew."""
AS_IT_IS = "what there is"
FOLDS, ROUNDS = 5, 2
SURE = 0.98
"""A gain is real if it is above 0 in this share of the bootstrap's draws. With 0.95, one in twenty projects that
the defaults suit got something else, and up to 1.7 points fewer right boxes by it."""
SURE_UNMEASURED = 0.5
"""The same where no refiner is known: nobody has measured what such a network's thresholded box is worth, so that
a gain on photos that had no part in the fit need only be likelier than none. In twenty splits, fifty photos as
corrections, publishing always gained 2.5 points on the others, and never lost any."""
_SHOWN = 0.95
_DRAWS = 2000
_RIGHT_WIDTH = 0.1
_CORES = 4
"""More would crowd the workers beside it."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one set of parameters is worth on the photos: one box each, against the nearest true one."""

    corloc: float
    """Share of boxes with IoU ≥ 0.5."""
    mean_iou: float
    center_hit: float
    """Share of boxes whose centre lies in a true box."""
    score_auroc: float | None
    """Chance that a right box scores higher than a wrong one; None without both kinds."""
    calibration_error: float
    """Mean distance of score and share of right boxes, in groups of equal size."""


@dataclass(frozen=True, slots=True)
class Gain:
    """After minus before, and where it lies with 90 % confidence."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What came of a fit. Figures after it are of photos that had no part in it."""

    photos: int
    parameters: Parameters
    """What to use from now on: the old ones where the gain is not real."""
    boxes: bool
    """Whether the boxes are drawn anew."""
    score: bool
    """Whether the score is calibrated anew."""
    trial: str
    """What suits these photos best, published or not."""
    candidate: Parameters
    """Its parameters, but for the score."""
    before: Figures | None = None
    after: Figures | None = None
    gains: dict[str, Gain] | None = None
    sure: float = SURE
    """How sure a gain in `value` has to be."""
    reason: str = ""

    @property
    def better(self) -> bool:
        """Whether anything is to be changed."""
        return self.boxes or self.score

    def to_dict(self) -> dict[str, Any]:
        """Everything but the parameters, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("parameters", "candidate")} | {
            "better": self.better
        }


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to parameters: how the maps are looked at, and how much is learned from the photos."""

    name: str
    look: Parameters
    """Refiner and score are those that are known."""
    photos: Study
    """As they look so."""
    trust: float

    def learn(self, among: Sequence[Floats]) -> list[Regression]:
        """A refiner from the photos of each of `among`: (N,) 1 for those that it learns from, else 0."""
        return adapt(self.photos, known_regression(self.look), [Trial(some, self.trust) for some in among])


@one_thread()
def fit(maps: Maps, truths: Sequence[Floats], parameters: Parameters, *, seed: int = 0) -> Fit:
    """Parameters for N photos like these, whose true boxes (M, 4), M ≥ 1, people drew: fractions of the image."""
    count = len(maps)
    if count < LEAST:
        reason = f"{count} photos with boxes: at least {LEAST} are needed"
        return Fit(count, parameters, False, False, AS_IT_IS, parameters, reason=reason)
    photos = study(maps, parameters, truths)
    ways = _ways(photos, maps, truths, parameters)
    old = drawn(photos, parameters)
    folds, held = _held_out(ways, old, seed)
    every = np.arange(count)
    before = overlaps(old, photos, every)
    chosen, boxes = _choose(ways, folds, held, photos)
    after = np.mean([overlaps(one, photos, every) for one in boxes], axis=0)
    value = np.mean([_value(overlaps(one, photos, every)) for one in boxes], axis=0) - _value(before)
    right = np.mean([overlaps(one, photos, every) >= 0.5 for one in boxes], axis=0) - (before >= 0.5)
    gains = {"corloc": _gain(right, seed), "mean_iou": _gain(after - before, seed), "value": _gain(value, seed)}
    candidate = parameters
    if chosen is not None:
        candidate = replace(chosen.look, regression=chosen.learn([np.ones(count)])[0])
    measured = parameters.regression is not None
    sure = SURE if measured else SURE_UNMEASURED
    real = chosen is not None and _gain(value, seed, sure).low > 0 and (gains["corloc"].mean >= 0 or not measured)
    fresh = candidate if real else parameters
    boxes = boxes if real else [old]
    seen = photos if chosen is None or not real else chosen.photos
    final, scored = _score(seen, parameters, fresh, boxes, seed)
    return Fit(
        photos=count,
        parameters=final,
        boxes=real,
        score=final.calibration != fresh.calibration,
        trial=chosen.name if chosen else AS_IT_IS,
        candidate=candidate,
        before=_figures(photos, [old], [old_score(photos, parameters, old)]),
        after=_figures(photos, boxes, scored),
        gains=gains,
        sure=sure,
        reason="" if real else "no gain in the boxes that is more than chance",
    )


def _ways(photos: Study, maps: Maps, truths: Sequence[Floats], parameters: Parameters) -> list[_Way]:
    """Everything that is tried: all trusts for the look that is known, one for each other look."""
    found = [_Way(_name(trust), parameters, photos, trust) for trust in TRUST]
    trust = LOOK_TRUST if len(photos) < MANY else FORGET
    others = looks(parameters)
    seen = _side_by_side(lambda look: study(maps, look, truths), others.values())
    for (name, look), one in zip(others.items(), seen, strict=True):
        found.append(_Way(f"{name}; {_name(trust)}", look, one, trust))
    return found


def _side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` on each item, in order, on as many cores as there are. Each computes in one thread, so that sums are
    the same on every machine."""

    def alone(item: T) -> R:
        with one_thread():
            return work(item)

    with ThreadPoolExecutor(min(_CORES, os.cpu_count() or 1)) as pool:
        return list(pool.map(alone, items))


def _name(trust: float) -> str:
    if math.isinf(trust):
        return "all boxes moved and scaled alike"
    return "the refiner learned anew" if trust == FORGET else f"the refiner as {trust:.0f} photos' worth"


def drawn(photos: Study, parameters: Parameters) -> Floats:
    """The box (N, 4) that the parameters draw in each photo."""
    if parameters.regression is not None:
        return regress(photos.probes, parameters.regression)
    return union_boxes(photos.heat, parameters.threshold)


def _held_out(ways: Sequence[_Way], old: Floats, seed: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The folds (R, N) of all rounds, and boxes (R, 1 + W, N, 4) of what there is and of every way, each of
    weights that the photo had no part in."""
    count = len(old)
    folds = np.stack([np.random.default_rng([seed, number]).permutation(count) % FOLDS for number in range(ROUNDS)])
    parts = [(number, fold) for number in range(ROUNDS) for fold in range(FOLDS)]
    among = [(folds[number] != fold).astype(float) for number, fold in parts]
    boxes = np.empty((ROUNDS, 1 + len(ways), count, 4))
    boxes[:, 0] = old
    learned = _side_by_side(lambda way: way.learn(among), ways)
    for place, (way, found) in enumerate(zip(ways, learned, strict=True)):
        for (number, fold), weights in zip(parts, found, strict=True):
            out = folds[number] == fold
            boxes[number, 1 + place, out] = regress(way.photos.probes[out], weights)
    return folds, boxes


def _choose(
    ways: Sequence[_Way], folds: npt.NDArray[np.int64], boxes: Floats, photos: Study
) -> tuple[_Way | None, list[Floats]]:
    """The best way, None for what there is, and the boxes (N, 4) of each round, where the way of every fold is
    the best one of the other folds."""
    every = np.arange(len(photos))
    values = np.array([[_value(overlaps(one, photos, every)) for one in tried] for tried in boxes])
    chosen = []
    for number, fold in enumerate(folds):
        mine = np.empty_like(boxes[0, 0])
        for part in range(FOLDS):
            out = fold == part
            best = int(values[number][:, ~out].mean(1).argmax())
            mine[out] = boxes[number, best, out]
        chosen.append(mine)
    best = int(values.mean((0, 2)).argmax())
    return (None if best == 0 else ways[best - 1]), chosen


def _value(fit: Floats) -> Floats:
    """What an IoU is worth: itself, and half of whether it is right, with a soft edge."""
    return np.asarray(fit + 0.5 / (1 + np.exp(-(fit - 0.5) / _RIGHT_WIDTH)))


def _gain(differences: Floats, seed: int, level: float = _SHOWN) -> Gain:
    draws = np.random.default_rng(seed).integers(0, len(differences), (_DRAWS, len(differences)))
    low, high = np.quantile(differences[draws].mean(1), [1 - level, level])
    return Gain(round(float(differences.mean()), 4), round(float(low), 4), round(float(high), 4))


def _score(
    photos: Study,
    old: Parameters,
    fresh: Parameters,
    boxes: Sequence[Floats],
    seed: int,
) -> tuple[Parameters, list[Floats]]:
    """The fresh parameters with the score that suits their boxes, and the held-out scores (N,) of each round.

    `photos` are as the fresh parameters see them.
    """
    every = np.arange(len(photos))
    kept = [old_score(photos, old, one) for one in boxes]
    right = [overlaps(one, photos, every) >= 0.5 for one in boxes]
    if min(int(r.sum()) for r in right) < 5 or min(int((~r).sum()) for r in right) < 5:
        return fresh, kept
    learned: list[Floats] = []
    for one, hit in zip(boxes, right, strict=True):
        fold = np.random.default_rng([seed, 7]).permutation(len(every)) % FOLDS
        scores = np.empty(len(every))
        for part in range(FOLDS):
            out, rest = fold == part, fold != part
            model = fit_score(photos, old.calibration, every[rest], one[rest], hit[rest])
            scores[out] = chance(score_signs(photos, every[out], one[out]), model)
        learned.append(scores)
    better = [log_loss(k, r) - log_loss(s, r) for k, s, r in zip(kept, learned, right, strict=True)]
    if _gain(np.mean(better, axis=0), seed, SURE).low <= 0:
        return fresh, kept
    model = fit_score(
        photos, old.calibration, np.tile(every, len(boxes)), np.concatenate(boxes), np.concatenate(right)
    )
    return replace(fresh, calibration=model), learned


def _figures(photos: Study, boxes: Sequence[Floats], scores: Sequence[Floats]) -> Figures:
    """Means over rounds."""
    every = np.arange(len(photos))
    fits = [overlaps(one, photos, every) for one in boxes]
    aurocs = [auroc(s.astype(np.float64), f >= 0.5) for s, f in zip(scores, fits, strict=True)]
    known = [one for one in aurocs if one is not None]
    bins = max(2, min(10, len(every) // 10))
    errors = [np.abs(reliability(s, f >= 0.5, bins)).mean() for s, f in zip(scores, fits, strict=True)]
    return Figures(
        corloc=_rounded(np.mean([f >= 0.5 for f in fits])),
        mean_iou=_rounded(np.mean(fits)),
        center_hit=_rounded(np.mean([centred(one, photos, every) for one in boxes])),
        score_auroc=_rounded(np.mean(known)) if known else None,
        calibration_error=_rounded(np.mean(errors)),
    )


def _rounded(value: Any) -> float:
    return round(float(value), 4)
