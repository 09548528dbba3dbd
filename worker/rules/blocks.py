"""Long elementwise chains in pieces that stay in the processor's cache.

A chain of six operations over a large activation reads and writes main memory six times. Piece by piece it does so
once. On a GPU one piece is everything: there the number of launches counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

BLOCK = 1 << 17
"""Values in one piece: a handful of them fit into the second-level caches of two cores."""

Empty: TypeAlias = Callable[[Tensor], Tensor]
"""Gives uninitialised memory of the same shape, type and layout: `torch.empty_like`, or a `Workspace`."""


class Scratch:
    """Memory for the intermediate results of a chain, the same for each piece; by name and shape."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[tuple[str, torch.Size], Tensor] = {}

    def __call__(self, name: str, shape: torch.Size) -> Tensor:
        """Uninitialised memory, overwritten by the next call with the same name and shape."""
        found = self._held.get((name, shape))
        if found is None:
            found = self._held[name, shape] = torch.empty(shape, dtype=self._like.dtype, device=self._like.device)
        return found

    def alike(self, name: str, tensor: Tensor) -> Tensor:
        """The same with the shape and layout of `tensor`: a GPU is slow where layouts differ."""
        if memory_order(tensor) is None or tensor.is_contiguous():
            return self(name, tensor.shape)
        rows = tensor.permute(0, 2, 3, 1)
        return self(name, rows.shape).permute(0, 3, 1, 2)


class Workspace:
    """Memory for records that one call hands to the next instead of returning it to the system.

    Fresh memory costs a page fault for every 4 KiB, which takes longer than the arithmetic done on it.
    Not for use by several threads at once.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[object, ...], list[Tensor]] = {}
        self._lent: list[tuple[tuple[object, ...], Tensor]] = []

    def empty(self, like: Tensor) -> Tensor:
        """Uninitialised memory like `like`, valid until `collect`."""
        key = (like.shape, like.dtype, like.device, like.stride())
        free = self._free.get(key)
        tensor = free.pop() if free else torch.empty_like(like)
        self._lent.append((key, tensor))
        return tensor

    def collect(self) -> None:
        """Take back everything lent; what nobody used this time is let go."""
        self._free.clear()
        for key, tensor in self._lent:
            self._free.setdefault(key, []).append(tensor)
        self._lent.clear()

    def clear(self) -> None:
        """Return everything to the system, what is lent too as soon as nobody holds it."""
        self._free.clear()
        self._lent.clear()


def memory_order(x: Tensor) -> Tensor | None:
    """One-dimensional view of all values as they lie in memory; None where they do not lie densely."""
    if x.is_contiguous():
        return x.view(-1)
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).view(-1)
    return None


def blocks(many: Sequence[Tensor], references: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Corresponding pieces of tensors that are shaped alike.

    Args:
        many: (N, …) each; a piece is a view, so it can be written to.
        references: (1, …) or (N, …) each; one serves all.
    """
    together = (*many, *references)
    if many[0].device.type != "cpu" or not _alike(together):
        yield together
        return
    if many[0].numel() <= BLOCK and all(reference.shape == many[0].shape for reference in references):
        yield together
        return
    for i in range(len(many[0])):
        rows = [x[i : i + 1] for x in many]
        rows += [x[i : i + 1] if len(x) > 1 else x for x in references]
        flat = [memory_order(row) for row in rows]
        yield from zip(*(torch.split(row, BLOCK) for row in flat if row is not None), strict=True)


def _alike(tensors: Sequence[Tensor]) -> bool:
    """All lie in memory in the same order."""
    return all(x.is_contiguous() for x in tensors) or all(
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) for x in tensors
    )
