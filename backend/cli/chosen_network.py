"""Which network a command runs: what its options name, and what the settings name where they are silent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.settings import Settings
from worker.errors import UnknownNetworkError

if TYPE_CHECKING:
    import torch

    from worker.networks import Network


@dataclass(frozen=True)
class ChosenNetwork:
    """A network's name, with files of the user's own or None for the published ones."""

    name: str
    weights: Path | None = None
    classes: Path | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        network: str | None = None,
        weights: Path | str | None = None,
        classes: Path | str | None = None,
    ) -> ChosenNetwork:
        """The options `network`, `weights` and `classes`, each completed by its setting.

        BOXLIFT_WEIGHTS and BOXLIFT_CLASSES are of BOXLIFT_NETWORK: with the name of another network they do not
        count. A leading ~ is the home folder.
        """
        if network in (None, settings.network):
            weights, classes = weights or settings.weights, classes or settings.classes
        return cls(network or settings.network, _path(weights), _path(classes))

    def instead(self, settings: Settings) -> Settings:
        """The settings with this network in place of theirs, for other processes."""
        weights, classes = str(self.weights or ""), str(self.classes or "")
        return replace(settings, network=self.name, weights=weights, classes=classes)

    def load(
        self, settings: Settings, *, device: torch.device | str | None = None, progress: bool = True
    ) -> Network:
        """The network on `device`, or on BOXLIFT_DEVICE. `progress` shows a download on stderr.

        Raises click.UsageError where there is no such network, and what `worker.networks.load_network` raises.
        """
        from worker.networks import load_network

        try:
            return load_network(
                self.name,
                weights=self.weights,
                classes=self.classes,
                cache_dir=settings.cache_dir,
                device=settings.device if device is None else device,
                progress=progress,
            )
        except UnknownNetworkError as error:
            raise click.UsageError(str(error)) from None


def _path(name: Path | str | None) -> Path | None:
    return Path(name).expanduser() if name else None
