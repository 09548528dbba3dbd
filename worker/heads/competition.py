"""Who competes for a photo's label: classes that labels have already, and classes that are to be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.heads.examples import Example
from worker.heads.fitting import Floats

ELSEWHERE = 0.1
"""Share of every example's label that stays with the best of the network's classes. It sets the level: in photos of
its labels a head is nine times as sure as the network is of anything else."""


@dataclass(frozen=True, eq=False)
class Competition:
    """The labels of one project, and which of the network's classes each has without learning."""

    taken: Mapping[str, Sequence[int]]
    """Label → its class indices; labels that no class reaches have none, or are missing."""
    rest: str | None = None
    """The label that takes all other classes; None where these do not compete."""

    def label_of(self, logits: Floats) -> list[str | None]:
        """What photos with these logits (N, C) are called without learning; None where no class competes."""
        owner = self.owners(logits.shape[1])
        allowed = np.flatnonzero([label is not None for label in owner])
        if not len(allowed):
            return [None] * len(logits)
        return [owner[allowed[row.argmax()]] for row in logits[:, allowed]]

    def owners(self, classes: int) -> list[str | None]:
        """The label of each class."""
        owner: list[str | None] = [self.rest] * classes
        for label, indices in self.taken.items():
            for index in indices:
                owner[index] = label
        return owner

    def rivals(self, logits: Floats) -> tuple[tuple[str, ...], Floats]:
        """Labels that have classes, and how far the best class of each is behind the best of all: (N, F), ≤ 0."""
        owner = self.owners(logits.shape[1])
        labels = tuple(dict.fromkeys(label for label in owner if label is not None))
        best = logits.max(1)
        columns = [logits[:, [own == label for own in owner]].max(1) - best for label in labels]
        return labels, np.stack(columns, 1) if columns else np.empty((len(logits), 0))


@dataclass(frozen=True, eq=False)
class Table:
    """All examples of a project, ready for fitting: V crops of P photos, and the photos themselves."""

    crops: npt.NDArray[np.floating]
    """(V, D)"""
    photo: npt.NDArray[np.intp]
    """(V,) which photo a crop is of."""
    crop_labels: tuple[str, ...]
    wholes: npt.NDArray[np.floating]
    """(P, D)"""
    labels: tuple[tuple[str, ...], ...]
    """(P,) all labels in each photo, that of its largest box first."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Table:
        """Of at least one example."""
        return cls(
            crops=np.concatenate([one.crops for one in examples]),
            photo=np.repeat(np.arange(len(examples)), [len(one.crops) for one in examples]),
            crop_labels=tuple(label for one in examples for label in one.crop_labels),
            wholes=np.stack([one.whole for one in examples]),
            labels=tuple(one.labels for one in examples),
        )

    @property
    def importance(self) -> Floats:
        """(V,): every photo counts as one."""
        return np.asarray(1.0 / np.bincount(self.photo)[self.photo])

    def right(self, called: Sequence[str | None]) -> npt.NDArray[np.bool_]:
        """(P,) whether each photo shows what it is called."""
        return np.array([name in labels for name, labels in zip(called, self.labels, strict=True)])

    def counts(self) -> dict[str, int]:
        """Label → photos that show it, most frequent first."""
        found: dict[str, int] = {}
        for labels in self.labels:
            for label in labels:
                found[label] = found.get(label, 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def targets(
    own: Sequence[str], others: Sequence[str], labels: Sequence[str], gaps: Floats
) -> tuple[Floats, Floats]:
    """What each crop is to be called, (V, K + 1 + F), and its given rivals, (V, 1 + F).

    own: the K labels to learn; others: the F labels that have classes; gaps (V, F) of `Competition.rivals`.
    Column K is the best of the network's classes. The classes that a label has do not compete with what is learned
    of it: whichever of them wins, the label is right.
    """
    wanted = np.zeros((len(labels), len(own) + 1 + len(others)))
    rivals = np.concatenate([np.zeros((len(labels), 1)), gaps], 1)
    for row, label in enumerate(labels):
        wanted[row, len(own)] = ELSEWHERE
        if label in own:
            wanted[row, own.index(label)] = 1 - ELSEWHERE
            if label in others:
                rivals[row, 1 + others.index(label)] = -np.inf
        elif label in others:
            wanted[row, len(own) + 1 + others.index(label)] = 1 - ELSEWHERE
        else:
            wanted[row, len(own)] = 1.0
    return wanted, rivals


def called(outputs: Floats, own: Sequence[str], others: Sequence[str], gaps: Floats) -> list[str]:
    """What photos are called with learned outputs (N, K), as predictions are made: the best class of all wins."""
    names = (*own, *others)
    return [names[index] for index in np.concatenate([outputs, gaps], 1).argmax(1)]
