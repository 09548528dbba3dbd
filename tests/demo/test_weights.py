"""The demo falls back to the network whose weights are here, at once and with a word about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.demo.weights import FALLBACK, Choice, choose_network
from worker.errors import UnknownNetworkError, WeightsError
from worker.networks import NETWORKS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine without a way out: its proxy is a port where nothing listens."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache"


def test_unreachable_weights_are_replaced_with_a_notice(cache: Path) -> None:
    choice = choose_network("vgg16", None, cache)
    assert choice.network == FALLBACK
    assert "vgg16 cannot be had" in choice.notice
    assert FALLBACK in choice.notice
    assert not list(cache.glob("*.pth"))


def test_weights_that_are_here_are_used(cache: Path) -> None:
    cache.mkdir()
    (cache / NETWORKS["vgg16"].source.filename).touch()  # type: ignore[attr-defined,union-attr]
    assert choose_network("vgg16", None, cache) == Choice("vgg16")


def test_the_fallback_needs_nothing(cache: Path) -> None:
    assert choose_network(FALLBACK, None, cache) == Choice(FALLBACK)


def test_own_weights_are_not_replaced(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    with pytest.raises(WeightsError, match=r"own\.pth"):
        choose_network("vgg16", file, cache)
    file.touch()
    assert choose_network("vgg16", file, cache) == Choice("vgg16")


def test_unknown_networks_are_named(cache: Path) -> None:
    with pytest.raises(UnknownNetworkError, match="vgg61"):
        choose_network("vgg61", None, cache)
