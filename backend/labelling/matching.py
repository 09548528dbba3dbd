"""Which of the network's classes each label takes.

A label takes the classes that its `predicted_values` name. Without these (or where none of them names a class) it
takes those that are called like it, and those that are a kind of what it is called. Where a word has several
meanings that classes are a kind of, the one with most classes counts ("Car" is the motor car, not the railway car).

A class goes to one label of its Image tag: the most specific one, that is, the one fewest steps above it by the
longest way up. At equal distance `predicted_values` come before names, names before synonyms, these before what a
word takes in beyond WordNet (wild dogs are dogs), and earlier labels before later ones.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.labelling.config import Control, Label, Labelling
from backend.labelling.imagenet import Taxonomy, key, taxonomy

SKIP = "skip"
ONLY_LABEL = "only-label"
"""Values of the setting `unmatched`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a class's boxes go: a control and one of its labels (None on a bare Rectangle tag)."""

    control: Control
    label: str | None


@dataclass(frozen=True)
class LabelMap:
    """The whole mapping of one labelling config to one network's classes."""

    targets: Mapping[str, Mapping[int, Target]]
    """Name of the Image tag → class index → where its boxes go."""
    rest: Mapping[str, Target]
    """Name of the Image tag → where boxes of all other classes go, on tags that take them."""
    labels: Mapping[str, tuple[int, ...]]
    """Label → its class indices, over all tags; empty for labels that no class reaches."""

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Labels that no class can reach, in the config's order."""
        catch_all = {target.label for target in self.rest.values()}
        return tuple(label for label, classes in self.labels.items() if not classes and label not in catch_all)

    def target(self, to_name: str, class_index: int) -> Target | None:
        """Where a box of this class on this Image tag goes, or None if nothing wants it."""
        return self.targets.get(to_name, {}).get(class_index) or self.rest.get(to_name)

    def classes(self, to_name: str) -> tuple[int, ...] | None:
        """Classes that compete on this Image tag, ascending; None where all do."""
        return None if to_name in self.rest else tuple(sorted(self.targets.get(to_name, ())))


def match_labels(labelling: Labelling, classes: Sequence[str], unmatched: str = SKIP) -> LabelMap:
    """Match a config's labels to a network's classes (their names, by index).

    `unmatched` says what becomes of classes without a label: `skip`, or `only-label` where there is just one.
    A label marked with model_unmatched="true" takes them whatever the setting.
    """
    reach = _Reach.of(tuple(classes))
    targets: dict[str, dict[int, Target]] = {}
    rest: dict[str, Target] = {}
    labels: dict[str, set[int]] = {label.value: set() for c in labelling.controls for label in c.labels}
    for image in labelling.drawn_images:
        controls = labelling.controls_of(image.name)
        ranked: dict[int, tuple[Rank, int, Target]] = {}
        candidates = [(control, label) for control in controls for label in control.labels]
        for order, (control, label) in enumerate(candidates):
            for index, rank in reach.classes(label).items():
                if index not in ranked or (rank, order) < ranked[index][:2]:
                    ranked[index] = (rank, order, Target(control, label.value))
        targets[image.name] = {index: target for index, (_, _, target) in sorted(ranked.items())}
        for index, target in targets[image.name].items():
            labels[str(target.label)].add(index)
        taker = _rest(controls, unmatched)
        if taker is not None:
            rest[image.name] = taker
    return LabelMap(targets, rest, {label: tuple(sorted(found)) for label, found in labels.items()})


def _rest(controls: Sequence[Control], unmatched: str) -> Target | None:
    """Who takes the classes that no label takes: a marked label, the only label, or a tag that needs none."""
    for control in controls:
        for label in control.labels:
            if label.catch_all:
                return Target(control, label.value)
    offered = {label.value for control in controls for label in control.labels}
    for control in controls:
        if control.bare:
            return Target(control, None)
        if unmatched == ONLY_LABEL and len(offered) == 1:
            return Target(control, control.labels[0].value)
    return None


Rank = tuple[int, int]
"""Steps from the class up to the label's meaning, then how it was named: smaller is more specific."""
_LISTED, _NAME, _SYNONYM, _WIDER = range(4)


@dataclass(frozen=True, eq=False)
class _Reach:
    """What can be said about one network's classes."""

    names: tuple[frozenset[str], ...]
    """Keys of each class's own name or names."""
    synsets: tuple[str | None, ...]
    table: Taxonomy

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def of(classes: tuple[str, ...]) -> _Reach:
        """Looked up once per network."""
        table = taxonomy()
        names = tuple(frozenset(key(part) for part in (name, *name.split(","))) for name in classes)
        return _Reach(names, table.synsets_of(classes), table)

    @functools.cached_property
    def below(self) -> Mapping[str, Mapping[int, int]]:
        """Synset → the classes that are a kind of it → steps down to them."""
        found: dict[str, dict[int, int]] = defaultdict(dict)
        for index, wnid in enumerate(self.synsets):
            for ancestor, steps in (self.table.ancestors(wnid) if wnid else {}).items():
                found[ancestor][index] = steps
        return found

    @functools.cached_property
    def named(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, list[int]] = defaultdict(list)
        for index, names in enumerate(self.names):
            for name in names:
                found[name].append(index)
        return {name: tuple(indices) for name, indices in found.items()}

    def classes(self, label: Label) -> dict[int, Rank]:
        """The classes that a label takes, and how specific it is for each."""
        listed: dict[int, Rank] = {}
        for value in label.predicted_values:
            for index, (steps, _) in self._find(value).items():
                listed[index] = min(listed.get(index, (steps, _LISTED)), (steps, _LISTED))
        if listed:
            return listed
        found: dict[int, Rank] = {}
        for name in label.names:
            for index, rank in self._find(name).items():
                found[index] = min(found.get(index, rank), rank)
        return found

    def _find(self, name: str) -> dict[int, Rank]:
        """Classes that one word reaches, by its first spelling that reaches any."""
        for spelling in self.table.spellings(name):
            found: dict[int, Rank] = {}
            for index, rank in self._by_spelling(spelling):
                found[index] = min(found.get(index, rank), rank)
            if found:
                return found
        return {}

    def _by_spelling(self, spelling: str) -> Iterator[tuple[int, Rank]]:
        above: list[Mapping[int, int]] = []
        for wnid in self.table.meanings.get(spelling, ()):
            reached = self.below.get(wnid, {})
            if len(reached) == 1 and 0 in reached.values():
                yield from ((index, (0, _SYNONYM)) for index in reached)
            elif reached:
                above.append(reached)
            for other in self.table.also.get(wnid, ()):
                yield from ((index, (steps, _WIDER)) for index, steps in self.below.get(other, {}).items())
        if above:
            widest = max(above, key=len)  # the first, thus most frequent, meaning among equals
            yield from ((index, (steps, _SYNONYM)) for index, steps in widest.items())
        yield from ((index, (0, _NAME)) for index in self.named.get(spelling, ()))
