"""Every attack fails, and would succeed if its guard were removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import addresses
from .attack import Attack, scene

ATTACKS = [*addresses.ATTACKS]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack_fails(attack: Attack, tmp_path: Path) -> None:
    with scene(tmp_path) as place:
        assert not attack.run(place)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack_succeeds_without_its_guard(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack.remove(monkeypatch)
    with scene(tmp_path) as place:
        assert attack.run(place), "the test would not notice if the guard were lost"


@pytest.mark.parametrize("url", addresses.UNREADABLE)
def test_addresses_that_parsers_read_differently_are_none(url: str, tmp_path: Path) -> None:
    with scene(tmp_path) as place:
        assert addresses.ask(place, url.format(port=place.port)) is None
        assert not place.reached
