"""The two linear models: what they must do whatever their weights are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from worker import regression
from worker.networks import NETWORKS
from worker.parameters import Calibration, Parameters, Regression
from worker.probes import count
from worker.scoring import EXTRA

RNG = np.random.default_rng(0)


def some_boxes(rows: int, probes: int) -> np.ndarray:
    corners = np.sort(RNG.random((rows, probes, 2, 2)), axis=2)
    return corners.reshape(rows, probes, 4)


def model(probes: int, down: float = 0.0) -> Regression:
    weights = RNG.normal(0, 0.2, (3, probes))
    return Regression(*(tuple(row) for row in weights.tolist()), down=down, width=-0.5, height=-0.4)


def test_one_probe_with_full_weight_comes_back() -> None:
    probes = some_boxes(20, 3)
    alone = Regression((0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0), 0.0, 0.0, 0.0)
    want = probes[:, 1]
    got = regression.regress(probes, alone)
    np.testing.assert_allclose(
        (got[:, :2] + got[:, 2:]) / 2, (want[:, :2] + want[:, 2:]) / 2, atol=regression.SMALLEST
    )
    np.testing.assert_allclose(got, want, atol=regression.SMALLEST / 2 + 1e-9)


def test_mirrored_probes_give_a_mirrored_box() -> None:
    probes, weights = some_boxes(50, 6), model(6, down=0.1)
    plain = regression.regress(probes, weights)
    mirrored = regression.regress(probes[..., [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0], weights)
    np.testing.assert_allclose(mirrored, plain[..., [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0], atol=1e-9)


def test_boxes_stay_in_the_image() -> None:
    wild = dataclasses.replace(model(6), width=5.0, height=-5.0)
    boxes = regression.regress(some_boxes(50, 6), wild)
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_another_number_of_probes_is_refused() -> None:
    with pytest.raises(ValueError, match="wants 6 probe boxes, not 5"):
        regression.regress(some_boxes(2, 5), model(6))


def test_certainty_by_hand() -> None:
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 5.0, 1.0]])
    found = regression.certainty(logits, [0, 1, 1], [0, 1, 2])
    first = np.exp(2) / (np.exp(2) + 2)
    assert found[0, 0] == pytest.approx(np.log(first / (1 - first)))
    assert found[0, 1] == pytest.approx(-first * np.log(first) - 2 * (1 - first) / 2 * np.log((1 - first) / 2))
    assert found[:, 2].tolist() == [2, 5, 1]
    assert found[:, 3].tolist() == [2, 4, -4]


def test_certainty_of_a_single_class() -> None:
    assert np.isfinite(regression.certainty(np.array([[3.0]]), [0], [0])).all()


def test_scores_are_chances() -> None:
    probes, boxes, heat = some_boxes(9, 5), some_boxes(9, 1)[:, 0], RNG.random((9, 8, 8))
    sure = regression.certainty(RNG.normal(0, 3, (9, 10)), range(9), range(9))
    seen = regression.signs(sure, boxes, probes, heat)
    assert seen.shape == (9, len(regression.CERTAINTY) + len(regression.FORM) + 5)
    weights = Calibration(tuple(RNG.normal(0, 1, seen.shape[1]).tolist()), 0.3)
    score = regression.chance(seen, weights)
    assert ((score >= 0) & (score <= 1)).all()
    assert len(set(score.tolist())) == 9


@pytest.mark.parametrize("name", ["vgg16", "efficientnet_lite0"])
def test_stored_parameters_fit_their_network(name: str) -> None:
    parameters = Parameters.of(name, NETWORKS[name].layers)
    assert parameters.regression is not None
    assert parameters.calibration is not None
    known = count(len(parameters.sources))
    assert len(parameters.regression.centre) == len(parameters.regression.own_side) == known
    assert len(parameters.calibration.weights) == len(regression.CERTAINTY) + len(regression.FORM) + known
    if parameters.extra is not None:
        assert len(parameters.extra.weights) == len(EXTRA)
    assert Parameters.from_dict(parameters.to_dict()) == parameters


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"vgg16", "efficientnet_lite0"}))
def test_networks_that_nobody_measured_use_their_own_layers(name: str) -> None:
    parameters = Parameters.of(name, NETWORKS[name].layers)
    assert set(parameters.layers) <= set(NETWORKS[name].layers)
    assert parameters.regression is None
