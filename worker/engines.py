"""Which code computes the maps: Boxlift's own engine, or captum by choice or where a layer asks for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from worker.attribution import Attribution, Attributor, Choice
from worker.choices import ENGINES
from worker.errors import SettingsError, UnsupportedLayerError
from worker.networks import Network

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Images (N, 3, H, W), normalised, and their targets → the maps."""

    def __call__(self, images: Tensor, choose: Choice) -> Attribution: ...


def make_attributor(
    network: Network,
    *,
    engine: str = "boxlift",
    precision: torch.dtype | None = None,
    layers: Sequence[str] = (),
    device: torch.device | str | None = None,
    reference: Tensor | float | str = "mean",
    chunk: int = 8,
    like: Engine | None = None,
) -> Engine:
    """The engine of that name for a network.

    Where the network has a layer without a rule in Boxlift's table, captum takes over with one warning if it
    knows the layer. precision: None for the fastest one that keeps the boxes (float32 for captum).
    layers: module paths whose contributions are wanted too. device: None for where the network is.
    reference, chunk, like: as for `Attributor`; captum shares nothing.
    Raises SettingsError for an unknown engine, UnsupportedLayerError where no engine knows a layer.
    """
    if engine not in ENGINES:
        raise SettingsError(f"engine {engine!r} does not exist: it must be one of {', '.join(ENGINES)}")
    if engine == "boxlift":
        try:
            return Attributor(
                network.module,
                input_size=network.preprocessing.size,
                precision=precision,
                layers=layers,
                device=device,
                reference=reference,
                chunk=chunk,
                like=like if isinstance(like, Attributor) else None,
            )
        except UnsupportedLayerError as error:
            ours = error
    from worker.captum_engine import CaptumAttributor  # imported only where it is used: it takes a second

    try:
        attributor = CaptumAttributor(
            network.module,
            input_size=network.preprocessing.size,
            precision=precision,
            layers=layers,
            device=device,
            reference=reference,
        )
    except UnsupportedLayerError as error:
        raise error if engine == "captum" else ours from None
    if engine == "boxlift":
        log.warning("%s: captum takes over, which is slower, because %s", network.name, ours)
    return attributor
