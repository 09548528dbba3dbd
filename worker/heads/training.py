"""A head out of annotated photos: strength and worth by cross-validation, and only what is better than before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from worker.contract import Head
from worker.heads.competition import Competition, Table, called, targets
from worker.heads.examples import Example
from worker.heads.fitting import Floats, LastLayer, Space, fit, one_thread, product
from worker.heads.outputs import encode

FEWEST = 5
"""Photos that a label needs before it can be learned: with fewer, not every part of a cross-validation has one."""
STRENGTHS = (0.3, 0.1, 0.03, 0.01, 0.003)
"""Of the L2 penalty, strongest first."""
FOLDS, FOLDS_OF_MANY, MANY = 10, 5, 100
"""Parts of a cross-validation, and with more photos than MANY."""
DOUBT = 0.05
"""Most chance of a gain, where there is none, that is accepted as a gain."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of photos, with its 95 % confidence interval (Wilson)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, right: npt.NDArray[np.bool_]) -> Share:
        """Of at least one photo."""
        interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        return cls(float(right.mean()), float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Learned:
    """What came of it."""

    head: Head | None
    """None where nothing better than before was found."""
    reason: str
    """Why there is a head, or none; a sentence."""
    photos: int
    after: Share | None = None
    """Photos called right with what was learned, by heads that had not seen them; None where nothing was tried."""
    before: Share | None = None
    """The same with the labels' present classes."""
    guess: Share | None = None
    """The same if every photo were called by the most frequent label."""
    doubt: float = 1.0
    """Chance of such a gain over the better of the two where there is none (one-sided sign test)."""
    strength: float = math.nan
    too_few: Mapping[str, int] = field(default_factory=dict)
    """Labels that no class reaches and that have too few photos to be learned → photos."""


@one_thread()
def train_head(examples: Sequence[Example], last: LastLayer, competition: Competition) -> Learned:
    """Learn the labels that no class reaches, and where that is clearly better still, all that have enough photos.

    The head is a linear function of features, fitted to crops in competition with the classes that labels have
    already; its worth is measured on whole photos held out, since predictions see these. Deterministic.
    """
    table = Table.of(examples) if examples else None
    counts = table.counts() if table else {}
    reached = {label for label in competition.owners(len(last.bias)) if label is not None}
    enough = tuple(label for label, count in counts.items() if count >= FEWEST)
    new = tuple(label for label in enough if label not in reached)
    too_few = {label: n for label, n in counts.items() if n < FEWEST and label not in reached}
    if table is None or not enough or len(reached | set(enough)) < 2:
        why = f"{FEWEST} photos of each of two labels are needed" if not enough else "one label needs no learning"
        return Learned(None, f"no labels learned: {why}", len(examples), too_few=too_few)
    courses = [Course.of(table, last, competition, own) for own in dict.fromkeys((new, enough)) if own]
    best = courses[0]
    for other in courses[1:]:
        if _doubt(other.right, best.right) < DOUBT:
            best = other
    before = table.right(competition.label_of(last.logits(table.wholes)))
    most = max(counts, key=lambda label: counts[label])
    guess = table.right([most] * len(examples))
    doubt = max(_doubt(best.right, before), _doubt(best.right, guess))
    head = best.head() if doubt < DOUBT else None
    names = ", ".join(best.own)
    return Learned(
        head,
        f"{names} learned" if head else f"{names} not learned: no clear gain over the classes that labels have now",
        len(examples),
        after=Share.of(best.right),
        before=Share.of(before),
        guess=Share.of(guess),
        doubt=doubt,
        strength=best.strength,
        too_few=too_few,
    )


@dataclass(frozen=True, eq=False)
class Course:
    """Learning some labels: the problem, what held-out photos were called, and the strength that suits them."""

    own: tuple[str, ...]
    table: Table
    space: Space
    inputs: Floats
    wanted: Floats
    rivals: Floats
    strength: float
    right: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, table: Table, last: LastLayer, competition: Competition, own: tuple[str, ...]) -> Course:
        """Cross-validated over photos; crops of one photo are never on both sides."""
        others, gaps = competition.rivals(last.logits(table.crops))
        _, photo_gaps = competition.rivals(last.logits(table.wholes))
        space = Space.of(table.crops, last)
        inputs, wholes = space.coordinates(table.crops), space.coordinates(table.wholes)
        wanted, rivals = targets(own, others, table.crop_labels, gaps)
        fold = folds(table)
        losses, right = np.empty((2, len(STRENGTHS), len(table.labels)))
        for number in range(fold.max() + 1):
            held, seen = fold == number, fold[table.photo] != number
            problem = inputs[seen], wanted[seen], rivals[seen], table.importance[seen]
            found = None
            for row, strength in enumerate(STRENGTHS):
                found = weights, bias = fit(*problem, strength, found)
                outputs = product(wholes, weights) + bias
                names = called(outputs, own, others, photo_gaps)
                right[row, held] = table.right(names)[held]
                losses[row, held] = _surprise(outputs, own, others, photo_gaps, table.labels)[held]
        # A photo counts under the strength that all other folds speak for, so that choosing it flatters nobody.
        verdict = np.empty(len(fold), dtype=bool)
        for number in range(fold.max() + 1):
            held = fold == number
            verdict[held] = right[_strongest(losses[:, ~held]), held] > 0
        strength = STRENGTHS[_strongest(losses)]
        return cls(own, table, space, inputs, wanted, rivals, strength, verdict)

    def head(self) -> Head:
        """Fitted to all photos."""
        weights, bias = fit(self.inputs, self.wanted, self.rivals, self.table.importance, self.strength)
        return encode(self.own, *self.space.folded(weights, bias))


def folds(table: Table) -> npt.NDArray[np.intp]:
    """(P,) the fold of each photo: photos of each label spread evenly, in an order that is shuffled but fixed."""
    first = np.unique([labels[0] for labels in table.labels], return_inverse=True)[1]
    shuffled = np.random.default_rng(0).permutation(len(first))
    order = shuffled[np.argsort(first[shuffled], kind="stable")]
    fold = np.empty(len(order), dtype=np.intp)
    fold[order] = np.arange(len(order)) % min(FOLDS_OF_MANY if len(order) > MANY else FOLDS, len(order))
    return fold


def _strongest(losses: Floats) -> int:
    """The strongest penalty whose loss is within one standard error of the least; losses (S, P)."""
    least = int(losses.mean(1).argmin())
    error = losses[least].std() / math.sqrt(losses.shape[1])
    return int(np.flatnonzero(losses.mean(1) <= losses[least].mean() + error)[0])


def _surprise(
    outputs: Floats, own: Sequence[str], others: Sequence[str], gaps: Floats, labels: Sequence[tuple[str, ...]]
) -> Floats:
    """(P,) minus the logarithm of the probability that a photo's labels have together."""
    names = np.array([*own, *others])
    values = np.concatenate([outputs, gaps], 1)
    chances = np.exp(values - values.max(1, keepdims=True))
    hit = np.array([np.isin(names, some) for some in labels])
    return np.asarray(-np.log(np.maximum((chances * hit).sum(1) / chances.sum(1), 1e-6)))


def _doubt(right: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Chance of winning so often over the other, photo by photo, if both were alike."""
    won, lost = int((right & ~other).sum()), int((other & ~right).sum())
    return float(binomtest(won, won + lost, 0.5, alternative="greater").pvalue) if won + lost else 1.0
