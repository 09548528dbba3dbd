"""Tuning keeps what is good, changes what is wrong for certain, and measures on photos it did not learn from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from blobs import PARAMETERS, blobs, scaled

from worker.boxes import Floats
from worker.learning import Study, overlaps, study
from worker.learning.adapting import FORGET, Trial, adapt, known_regression
from worker.learning.looks import looks
from worker.learning.tuning import LEAST, TRUST, fit
from worker.parameters import Parameters, Regression, Source
from worker.probes import count, union_boxes
from worker.regression import regress

FRESH, _TRUTHS = blobs(200, seed=99)


def mean_iou(parameters: Parameters, factor: float) -> float:
    """On photos that nobody has learned from."""
    photos = study(FRESH, parameters, scaled(_TRUTHS, factor))
    drawn = (
        union_boxes(photos.heat, parameters.threshold)
        if parameters.regression is None
        else regress(photos.probes, parameters.regression)
    )
    return float(overlaps(drawn, photos, np.arange(len(photos))).mean())


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_a_habit_of_all_annotators_is_learned_from_few_photos(defaults: Parameters, factor: float) -> None:
    maps, truths = blobs(30, seed=1)
    found = fit(maps, scaled(truths, factor), defaults)
    assert found.boxes
    assert found.gains is not None
    assert found.gains["mean_iou"].low > 0.02
    before, after = mean_iou(defaults, factor), mean_iou(found.parameters, factor)
    assert after > before + 0.05
    # What it promises is what unseen photos give, as far as 30 photos can tell.
    assert found.gains["mean_iou"].low - 0.05 < after - before < found.gains["mean_iou"].high + 0.05
    assert found.parameters.sources == defaults.sources


def test_defaults_that_suit_the_project_stay_or_are_bettered(defaults: Parameters) -> None:
    for seed in range(4):
        maps, truths = blobs(30, seed=seed)
        found = fit(maps, truths, defaults, seed=seed)
        assert found.boxes or found.parameters.regression == defaults.regression
        gained = mean_iou(found.parameters, 1.0) - mean_iou(defaults, 1.0)
        assert gained > 0 if found.boxes else gained == 0


def test_maps_that_the_photos_need_looked_at_otherwise_are(defaults: Parameters) -> None:
    """Where the maps are noisier than those that the defaults were chosen on."""
    maps, truths = blobs(40, seed=11, noise=0.3)
    fresh, wanted = blobs(200, seed=12, noise=0.3)
    found = fit(maps, truths, defaults)
    names = [name for name, look in looks(defaults).items() if look.sources == found.parameters.sources]
    assert found.trial.split(";")[0] in names, found.trial
    assert found.parameters.sources != defaults.sources
    figures = []
    for parameters in (defaults, found.parameters):
        photos = study(fresh, parameters, wanted)
        assert parameters.regression is not None
        figures.append(
            float(overlaps(regress(photos.probes, parameters.regression), photos, np.arange(200)).mean())
        )
    assert figures[1] > figures[0] + 0.1


def test_each_other_look_changes_one_thing() -> None:
    for parameters in (PARAMETERS, replace(PARAMETERS, mix="arithmetic", border=0.9)):
        found = looks(parameters)
        assert len({one.digest for one in found.values()} | {parameters.digest}) == len(found) + 1
        for name, look in found.items():
            plain, other = parameters.to_dict(), look.to_dict()
            changed = {key for key in plain if plain[key] != other[key]}
            assert len(changed) == 1, name
            assert look.layers == parameters.layers, f"{name}: the same pass has to serve"


def test_boxes_without_any_pattern_teach_nothing(defaults: Parameters) -> None:
    random = np.random.default_rng(5)
    maps, _ = blobs(40, seed=5)
    corners = np.sort(random.uniform(0, 1, (40, 2, 2)), axis=1)
    anywhere: list[Floats] = [np.array([[*low, *high]]) for low, high in corners]
    before = fit(maps, anywhere, defaults).before
    assert before is not None
    assert before.mean_iou < 0.5
    shuffled = [_TRUTHS[place] for place in random.permutation(40)]
    assert not fit(maps, shuffled, replace(defaults, regression=_mean_box(shuffled))).boxes


def _mean_box(truths: list[Floats]) -> Regression:
    """The refiner that draws the same best box whatever it sees."""
    none = (0.0,) * count(len(PARAMETERS.sources))
    sides = np.log(np.concatenate(truths)[:, 2:] - np.concatenate(truths)[:, :2]).mean(0)
    return Regression(none, none, none, 0.0, float(sides[0]), float(sides[1]))


def test_too_few_photos_change_nothing(defaults: Parameters) -> None:
    maps, truths = blobs(LEAST - 1)
    found = fit(maps, scaled(truths, 2.0), defaults)
    assert (found.better, found.parameters) == (False, defaults)
    assert str(LEAST) in found.reason


def test_a_network_that_nobody_has_measured_is_tuned_as_well() -> None:
    maps, truths = blobs(60, seed=3)
    found = fit(maps, truths, PARAMETERS)
    assert found.boxes
    assert mean_iou(found.parameters, 1.0) > mean_iou(PARAMETERS, 1.0) + 0.03


def test_a_score_that_is_off_is_calibrated() -> None:
    maps, truths = blobs(90, seed=8)
    corner = np.array([[0.0, 0.0, 0.04, 0.04]])
    found = fit(maps, [corner if place % 3 == 0 else box for place, box in enumerate(truths)], PARAMETERS)
    assert found.score, "probabilities of classes say nothing of boxes here"
    assert found.before is not None
    assert found.after is not None
    assert found.after.calibration_error < found.before.calibration_error
    assert found.parameters.calibration is not None


def test_of_several_objects_one_is_enough(defaults: Parameters) -> None:
    maps, truths = blobs(30, seed=2)
    elsewhere = np.array([[0.0, 0.0, 0.05, 0.05], [0.9, 0.9, 1.0, 1.0], [0.0, 0.9, 0.1, 1.0], [0.9, 0.0, 1.0, 0.1]])
    several = [np.concatenate([elsewhere, box]) for box in scaled(truths, 1.5)]
    found = fit(maps, several, defaults)
    assert found.boxes
    assert mean_iou(found.parameters, 1.5) > mean_iou(defaults, 1.5) + 0.05


def test_the_same_corrections_give_the_same_parameters(defaults: Parameters) -> None:
    maps, truths = blobs(20, seed=4)
    first, second = (fit(maps, scaled(truths, 1.4), defaults) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_dict()))["better"]
    assert Parameters.from_dict(json.loads(json.dumps(first.parameters.to_dict()))) == first.parameters


def test_the_known_refiner_of_a_threshold_draws_its_box() -> None:
    maps, truths = blobs(50)
    for threshold in (0.1, 0.15, 0.3, 0.7):
        parameters = replace(PARAMETERS, threshold=threshold)
        photos = study(maps, parameters, truths)
        drawn, wanted = regress(photos.probes, known_regression(parameters)), union_boxes(photos.heat, threshold)
        assert np.abs(drawn - wanted).max() < 0.08


def test_trials_do_not_see_each_other(defaults: Parameters) -> None:
    """Side by side or alone, on all photos or on some that are given as if there were no others."""
    maps, truths = blobs(40, seed=6)
    photos = study(maps, defaults, scaled(truths, 1.3))
    known = known_regression(defaults)
    some = np.arange(40) % 2 == 0
    together = adapt(photos, known, [Trial(mask, trust) for trust in TRUST for mask in (some, ~some)])
    alone = [adapt(photos, known, [Trial(mask, trust)])[0] for trust in TRUST for mask in (some, ~some)]
    for first, second in zip(together, alone, strict=True):
        assert _apart(photos, first, second) < 2e-3
    changed = Study(
        [t if keep else np.array([[0, 0, 0.1, 0.1]]) for t, keep in zip(photos.truths, some, strict=True)],
        photos.probes,
        photos.heat,
        photos.sure,
        photos.own,
    )
    for trust in (50.0, FORGET):
        first, second = (adapt(p, known, [Trial(some.astype(float), trust)])[0] for p in (photos, changed))
        assert _apart(photos, first, second) < 2e-3, "boxes of photos that it does not learn from matter nothing"


def _apart(photos: Study, first: Regression, second: Regression) -> float:
    """How far the boxes lie apart that they draw, at mean."""
    return float(np.abs(regress(photos.probes, first) - regress(photos.probes, second)).mean())


def test_more_trust_moves_less(defaults: Parameters) -> None:
    maps, truths = blobs(40, seed=7)
    sizes = [float((box[:, 2:] - box[:, :2]).mean()) for box in truths]
    habit = [scaled([box], 0.4 + 3 * size)[0] for box, size in zip(truths, sizes, strict=True)]
    photos = study(maps, defaults, habit)  # the larger the object, the looser
    known = known_regression(defaults)
    every = np.ones(40)
    alike, *others = adapt(photos, known, [Trial(every, t) for t in (np.inf, 5e4, 500.0, 5.0)])
    moved = [_apart(photos, alike, one) for one in others]
    assert moved == sorted(moved)
    assert moved[-1] > 5 * moved[0]


def test_sources_stay_what_the_workers_compute(defaults: Parameters) -> None:
    assert all(isinstance(source, Source) for source in fit(*blobs(12), defaults).parameters.sources)
