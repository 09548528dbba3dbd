"""Every attack fails, and would succeed if its guard were removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import ImageDecodeError
from worker.images import decode

from . import addresses, files, jobs, pictures, server
from .attack import Attack, scene

ATTACKS = [
    *addresses.ATTACKS,
    *files.ATTACKS,
    *pictures.ATTACKS,
    *jobs.ATTACKS,
    *server.ATTACKS,
]


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


@pytest.mark.parametrize("make", pictures.POLYGLOTS.values(), ids=pictures.POLYGLOTS)
def test_pictures_that_are_something_else_besides_are_pictures(make: Callable[[], bytes]) -> None:
    assert decode(make()).size == (64, 48)


@pytest.mark.parametrize("data", pictures.NO_PICTURES.values(), ids=pictures.NO_PICTURES)
def test_other_files_are_no_pictures(data: bytes) -> None:
    with pytest.raises(ImageDecodeError):
        decode(data)
