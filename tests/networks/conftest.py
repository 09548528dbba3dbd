"""Networks with cheap random weights, and a cache of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from random_networks import build_random
from torch import nn

Build = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def _no_foreign_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision may have downloaded on this machine does not count, and proxies do not either."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="session")
def random_network() -> Build:
    return build_random
