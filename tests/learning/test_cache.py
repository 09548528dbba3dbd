"""Maps on disk: found again by address or content, computed again where that is needed, and never too many."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from blobs import blobs

from worker.learning import Maps
from worker.learning.cache import MapCache, best_class


def one(seed: int = 0) -> Maps:
    return blobs(1, seed=seed)[0]


def same(a: Maps | None, b: Maps) -> bool:
    return a is not None and all(np.array_equal(a.sources[name], b.sources[name]) for name in b.sources)


def test_kept_maps_are_found_by_the_next_process(tmp_path: Path) -> None:
    cache, maps = MapCache(tmp_path, "v1"), one()
    assert cache.find("http://h/1.jpg", None) is None
    cache.keep("http://h/1.jpg", "c" * 32, maps)
    cache.close()
    again = MapCache(tmp_path, "v1")
    assert same(again.find("http://h/1.jpg", None), maps)
    assert same(again.look_up("c" * 32, None), maps), "the same photo at another address"
    assert MapCache(tmp_path, "v2").find("http://h/1.jpg", None) is None


def test_maps_of_another_class_do_not_serve(tmp_path: Path) -> None:
    cache, maps = MapCache(tmp_path, "v1"), one()
    cache.keep("a", "c" * 32, maps)
    best, *others = (int(c) for c in np.argsort(-maps.logits[0]))
    assert same(cache.find("a", [others[-1], best]), maps)
    assert cache.find("a", others) is None
    assert best_class(maps.logits[0], others) == others[0]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_a_damaged_file_is_no_maps(tmp_path: Path, damage: bytes) -> None:
    cache = MapCache(tmp_path, "v1")
    cache.keep("a", "c" * 32, one())
    [file] = tmp_path.rglob("*.npz")
    file.write_bytes(damage)
    assert cache.find("a", None) is None


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    cache = MapCache(tmp_path, "v1")
    for number in range(4):
        cache.keep(str(number), f"{number}" * 32, one(number))
    cache.close()
    for age, file in enumerate(sorted(tmp_path.rglob("*.npz"))):
        os.utime(file, (1000 + age, 1000 + age))
    assert cache.find("0", None) is not None  # used just now
    size = max(file.stat().st_size for file in tmp_path.rglob("*.npz"))
    small = MapCache(tmp_path, "v1", limit=2 * size)
    small.keep("4", "4" * 32, one(4))
    small.close()
    left = [number for number in range(5) if MapCache(tmp_path, "v1").find(str(number), None) is not None]
    assert left == [0, 4]
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_index_only_costs_the_look(tmp_path: Path) -> None:
    cache = MapCache(tmp_path, "v1")
    cache.keep("a", "c" * 32, one())
    cache.close()
    (tmp_path / "maps" / "v1" / "index.json").write_text("{", encoding="utf-8")
    again = MapCache(tmp_path, "v1")
    assert again.find("a", None) is None
    assert again.look_up("c" * 32, None) is not None


def test_the_same_path_on_another_server_is_another_photo(tmp_path: Path) -> None:
    cache = MapCache(tmp_path, "v1", server="http://one:8080/")
    cache.keep("/data/local-files/?d=a.jpg", "c" * 32, one())
    cache.close()
    assert MapCache(tmp_path, "v1", server="http://one:8080").find("/data/local-files/?d=a.jpg", None) is not None
    assert MapCache(tmp_path, "v1", server="http://two:8080").find("/data/local-files/?d=a.jpg", None) is None


def test_what_two_processes_have_seen_is_kept_of_both(tmp_path: Path) -> None:
    first, second = MapCache(tmp_path, "v1"), MapCache(tmp_path, "v1")
    first.keep("a", "a" * 32, one(1))
    second.keep("b", "b" * 32, one(2))
    second.close()
    first.close()
    again = MapCache(tmp_path, "v1")
    assert same(again.find("a", None), one(1))
    assert same(again.find("b", None), one(2))


def test_what_a_killed_process_left_half_written_goes_in_time(tmp_path: Path) -> None:
    cache = MapCache(tmp_path, "v1")
    cache.keep("a", "a" * 32, one())
    old, new = (tmp_path / "maps" / "v1" / "aa" / f"{number}.part" for number in (1, 2))
    for file in (old, new):
        file.write_bytes(b"PK")
    os.utime(old, (1000, 1000))
    cache.close()
    assert (old.exists(), new.exists()) == (False, True)
