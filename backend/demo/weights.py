"""Which network the demo can run: the one asked for, or the one whose weights come with the packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx

from worker.errors import WeightsError

FALLBACK = "efficientnet_lite0"
CONNECT_SECONDS = 5.0
"""A server of weights that does not answer within this is out of reach: the demo goes on without it."""


@dataclass(frozen=True)
class Choice:
    """The network to run, and what to tell people where it is not the one asked for."""

    network: str
    notice: str = ""


def choose_network(name: str, weights: Path | None, cache_dir: Path) -> Choice:
    """The network `name` if its weights are here or can be downloaded (with a progress bar), else the fallback.

    Raises UnknownNetworkError; WeightsError where `weights` names no file.
    """
    if name == FALLBACK and weights is None:
        return Choice(name)
    from worker.networks import find_entry  # imports torch

    entry = find_entry(name)
    if weights is not None:
        if not weights.is_file():
            raise WeightsError(f"there is no file {weights}: --weights names a local state dict")
        return Choice(name)
    source = entry.source
    if source.find(cache_dir) is not None:
        return Choice(name)
    try:
        url = getattr(source, "url", "")
        if url and not _answers(url):
            raise WeightsError(f"{url} cannot be reached")
        source.fetch(cache_dir, progress=True)
    except WeightsError as error:
        return Choice(
            FALLBACK, f"{name} cannot be had: {error}. Running {FALLBACK} instead, whose weights are here."
        )
    return Choice(name)


def _answers(url: str) -> bool:
    """Whether the server of `url` can be reached at all, through the proxy where there is one."""
    try:
        httpx.head(url, timeout=CONNECT_SECONDS, follow_redirects=False)
    except httpx.HTTPError:
        return False
    return True
