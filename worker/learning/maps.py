"""What learning needs of a network, once for each photo: its logits, and the contributions to one class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import torch

from worker.heatmap import of_part, smooth
from worker.images import Photo, to_tensor
from worker.localizer import Localizer, named_maps
from worker.parameters import Parameters

if TYPE_CHECKING:
    from worker.attribution import Attribution

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
_MAP = "map "


@dataclass(frozen=True)
class Maps:
    """N photos' logits, and the maps of one class of each. Every map's largest magnitude is 1."""

    logits: Floats
    """(N, C) float32."""
    targets: Integers
    """(N,) the class whose maps these are."""
    sources: dict[str, Floats]
    """By the names of `Parameters.sources`: (N, h, w) float16, each of its own size, at most the heat map's."""

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, photos: Sequence[int] | Integers) -> Maps:
        """Those of some photos, by number."""
        return Maps(
            self.logits[photos],
            self.targets[photos],
            {name: values[photos] for name, values in self.sources.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[Maps]) -> Maps:
        """Maps of the same sources, one after the other. Raises ValueError where there are none."""
        if not parts:
            raise ValueError("no photos: there are no maps to learn from")
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.targets for part in parts]),
            {name: np.concatenate([part.sources[name] for part in parts]) for name in parts[0].sources},
        )

    def save(self, file: Path) -> None:
        """To an npz file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        maps = {f"{_MAP}{name}": values for name, values in self.sources.items()}
        with file.open("wb") as stream:
            np.savez(stream, logits=self.logits, targets=self.targets, **maps)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: Path) -> Self:
        """From an npz file of `save`; without `targets`, the maps are those of the best class."""
        with file.open("rb") as stream, np.load(stream) as stored:
            logits = stored["logits"]
            targets = stored["targets"] if "targets" in stored else logits.argmax(1)
            sources = {name[len(_MAP) :]: stored[name] for name in stored.files if name.startswith(_MAP)}
        return cls(logits, targets, sources)


def map_photos(
    localizer: Localizer,
    photos: Iterable[tuple[Photo, Sequence[int] | None]],
    *,
    at_once: int = 8,
) -> Iterator[Maps]:
    """Maps of photos with the classes that compete in each, `at_once` photos after another.

    Of every photo the best class that competes is mapped back, as `Localizer.localize` does for one box.
    """
    parameters = localizer.parameters
    todo = iter(photos)
    while part := list(islice(todo, at_once)):
        inputs = torch.stack([to_tensor(photo, localizer.network.preprocessing) for photo, _ in part])
        yield _maps(localizer.attribute(inputs, [classes for _, classes in part]), parameters)


def _maps(found: Attribution, parameters: Parameters) -> Maps:
    maps = named_maps(found)
    return Maps(
        logits=found.logits.float().cpu().numpy(),
        targets=found.targets.cpu().numpy(),
        sources={s.name: _kept(maps[s.name].float(), s.part, parameters.grid) for s in parameters.sources},
    )


def _kept(values: torch.Tensor, part: str, grid: int) -> Floats:
    """A source in few bytes: what is finer than the heat map comes out of it the same from its means."""
    if min(values.shape[1:]) > grid:
        values = smooth(of_part(values, part), grid, 0.0)
    return values.div(values.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)).half().cpu().numpy()
