"""What ImageNet's classes are called and what they are a kind of: WordNet's nouns, as far as the classes reach."""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources


def key(name: str) -> str:
    """Two names that differ only in case, spaces, underscores or punctuation have the same key."""
    return re.sub(r"[\W_]+", "", name.casefold())


@dataclass(frozen=True)
class Synset:
    """One meaning: its words, and the meanings that it is a kind of."""

    lemmas: tuple[str, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """ImageNet's classes by index, and WordNet's nouns above them (a directed graph without cycles)."""

    wnids: tuple[str, ...]
    names: tuple[str, ...]
    """torchvision's names of the classes."""
    synsets: Mapping[str, Synset]
    senses: Mapping[str, tuple[str, ...]]
    """Lemmas with several meanings here, by key: the most frequent meaning first."""
    plurals: Mapping[str, str]
    """Irregular plurals by key → singular."""
    also: Mapping[str, tuple[str, ...]]
    """Meanings that people's word for a synset takes in as well, though WordNet has them elsewhere."""

    @functools.cached_property
    def meanings(self) -> Mapping[str, tuple[str, ...]]:
        """Key of a lemma → wnids of its meanings, the most frequent first."""
        found: dict[str, list[str]] = defaultdict(list)
        for wnid, synset in self.synsets.items():
            for name in dict.fromkeys(map(key, synset.lemmas)):
                found[name].append(wnid)
        return {name: tuple(sorted(wnids, key=self._rank(name))) for name, wnids in found.items()}

    def _rank(self, name: str) -> Callable[[str], int]:
        order = {wnid: place for place, wnid in enumerate(self.senses.get(name, ()))}
        return lambda wnid: order.get(wnid, len(order))

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - there is one taxonomy, for the life of the process
    def ancestors(self, wnid: str) -> Mapping[str, int]:
        """Everything that a synset is a kind of, itself included → the most steps that lead up to it.

        The longest way makes every meaning farther than all that lie below it, also where there are short cuts.
        """
        steps = {wnid: 0}
        for parent in self.synsets[wnid].parents:
            for ancestor, more in self.ancestors(parent).items():
                steps[ancestor] = max(steps.get(ancestor, 0), more + 1)
        return steps

    def synsets_of(self, classes: Sequence[str]) -> tuple[str | None, ...]:
        """The synset of each of a network's classes, or None for a name that WordNet does not tell.

        ImageNet's own classes are known by their index as long as the name fits, other networks' by their name.
        """
        return tuple(self._synset(index, name) for index, name in enumerate(classes))

    def _synset(self, index: int, name: str) -> str | None:
        words = {key(part) for part in [name, *name.split(",")]}
        if index < len(self.wnids):
            wnid = self.wnids[index]
            if words & {key(self.names[index]), wnid, *map(key, self.synsets[wnid].lemmas)}:
                return wnid
        for word in words:
            if word in self._by_name:
                return self._by_name[word]
            if len(self.meanings.get(word, ())) == 1:
                return self.meanings[word][0]
        return None

    @functools.cached_property
    def _by_name(self) -> Mapping[str, str]:
        return {key(name): wnid for wnid, name in zip(self.wnids, self.names, strict=True)}

    def spellings(self, name: str) -> Iterable[str]:
        """Keys that a person may have meant by `name`: as it is, then as the singular of an English plural."""
        whole = key(name)
        yield whole
        if whole in self.plurals:
            yield key(self.plurals[whole])
        for ending, singular in _PLURALS:
            if whole.endswith(ending) and len(whole) > len(ending) + 1:
                yield whole.removesuffix(ending) + singular


_PLURALS = (("men", "man"), ("ies", "y"), ("es", ""), ("s", ""))
"""Endings in the order they are tried (WordNet's morphy(7WN)); only words that exist match in the end."""


@functools.cache
def taxonomy() -> Taxonomy:
    """The table that ships with the package (scripts/imagenet_table.py writes it)."""
    text = resources.files("backend.labelling").joinpath("imagenet.json").read_text(encoding="utf-8")
    table = json.loads(text)
    return Taxonomy(
        wnids=tuple(wnid for wnid, _ in table["classes"]),
        names=tuple(name for _, name in table["classes"]),
        synsets={wnid: Synset(tuple(lemmas), tuple(up)) for wnid, (lemmas, up) in table["synsets"].items()},
        senses={key(lemma): tuple(wnids) for lemma, wnids in table["senses"].items()},
        plurals={key(plural): single for plural, single in table["plurals"].items()},
        also={wnid: tuple(others) for wnid, others in table["also"].items()},
    )
