"""Learning again takes nothing away: what is in use goes only for something that is better on the same pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from blobs import blobs, scaled

from backend.tuning import keeping
from worker.contract import Head, Tuning
from worker.learning import Maps
from worker.learning.tuning import Fit, fit
from worker.parameters import Parameters

HEAD = Head(("zorb", "blick"), "", (0.0, 0.0))


def in_use(parameters: Parameters | None, head: Head | None = None) -> Tuning:
    """As it comes out of Redis."""
    plain = None if parameters is None else json.loads(json.dumps(parameters.to_dict()))
    return Tuning(7, "base", "stub", plain, head)


def decide(maps: Maps, truths: list[np.ndarray], learned: Fit | None, current: Tuning | None) -> keeping.Kept:
    return keeping.parameters(learned, current, [maps] if len(maps) else [], truths)


def test_boxes_in_use_stay_where_nothing_better_was_found(defaults: Parameters) -> None:
    maps, truths = blobs(30, seed=1)
    wide = scaled(truths, 1.5)
    tuned = fit(maps, wide, defaults)
    assert tuned.boxes
    current = in_use(tuned.parameters)
    nothing = replace(tuned, parameters=defaults, boxes=False, score=False, after=tuned.before)
    kept = decide(maps, wide, nothing, current)
    assert kept.value == current.parameters
    assert "as tuned before" in kept.note
    assert decide(maps, wide, tuned, current) == keeping.Kept(current.parameters), "the same again"
    few = fit(maps.take(range(3)), wide[:3], defaults)
    assert decide(maps.take(range(3)), wide[:3], few, current).value == current.parameters
    assert decide(maps.take([]), [], None, current).value == current.parameters


def test_boxes_in_use_go_for_better_ones_and_for_better_defaults(defaults: Parameters) -> None:
    maps, truths = blobs(40, seed=2)
    wide, tight = scaled(truths, 1.5), scaled(truths, 0.6)
    current = in_use(fit(maps, wide, defaults).parameters)
    fresh = fit(maps, tight, defaults)
    assert fresh.boxes
    assert decide(maps, tight, fresh, current).value == in_use(fresh.parameters).parameters
    suited = fit(maps, truths, defaults)
    again = replace(suited, parameters=defaults, boxes=False, score=False, after=suited.before)
    kept = decide(maps, truths, again, current)
    assert kept.value is None
    assert "defaults' again" in kept.note
    assert decide(maps, truths, again, None).value is None


def test_labels_stay_as_long_as_the_config_has_them() -> None:
    current, newer = in_use(None, HEAD), Head(("zorb",), "", (0.0,))
    assert keeping.head(None, current, {"zorb", "blick", "Dog"}).value == HEAD
    assert keeping.head(newer, current, {"zorb", "blick"}).value == newer
    assert keeping.head(None, None, {"zorb"}).value is None
    gone = keeping.head(None, current, {"zorb"})
    assert gone.value is None
    assert "blick" in gone.note
