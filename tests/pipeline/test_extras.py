"""Boxes beside an image's first: what their score looks at, how it is learned, and that it is used as learned."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.pipeline.conftest import picture
from worker.contract import Tuning
from worker.drawing import draw
from worker.errors import ContractError
from worker.images import Photo
from worker.learning import Candidates, candidates, chosen, fit_extra
from worker.learning.extras import worthwhile
from worker.localizer import Localizer
from worker.networks import Network
from worker.parameters import Calibration, Parameters
from worker.parts import Found, Part
from worker.scoring import EXTRA, extra_signs, score

NOTHING = np.zeros(0)
WHOLE = (0.0, 0.0, 1.0, 1.0)
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


EVEN = Calibration((0.0,) * len(EXTRA), 0.0)


def part(weight: float, peak: float) -> Part:
    return Part(NOTHING, weight, peak, split=0.4, among=3)


def test_signs_by_hand() -> None:
    heat = np.full((2, 2), 0.5)
    found = [Found(0, WHOLE, heat, None, None), Found(1, LEFT, heat, None, None)]
    found += [Found(1, RIGHT, heat, None, part(0.3, 0.6))]
    signs = extra_signs(found, np.zeros(3, dtype=int), np.array([0.8, 0.5, 0.5]), np.array([1.0, 0.1, 0.1]))
    assert signs.shape == (3, len(EXTRA))
    half = np.log(0.5)
    assert signs[0].tolist() == pytest.approx([0, 0, np.log(4), 0, 0, 0, 0, half, 0, 0, 1])
    assert signs[1].tolist() == pytest.approx([0, np.log(0.1), 0, 0, 0, 0, 0, half, half, half**2, 0.25])
    region = [1, np.log(0.1), 0, np.log(0.3), np.log(0.6), np.log(3), 0.4, half, half, half**2, 0.25]
    assert signs[2].tolist() == pytest.approx(region)


def test_no_box_scores_above_its_images_first() -> None:
    heat = np.ones((2, 2))
    rows = [Found(0, WHOLE, heat, None, None), Found(1, LEFT, heat, None, None), Found(2, RIGHT, heat, None, None)]
    found = [*rows, Found(0, LEFT, heat, None, part(1.0, 1.0))]
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    images, targets = [0, 0, 1], [0, 1, 1]
    sure = Parameters(extra=Calibration((0.0,) * len(EXTRA), bias=9.0))
    first, second = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))
    assert score(found, logits, images, targets, sure).tolist() == pytest.approx([first, first, second, first])
    unsure = Parameters(extra=Calibration((-2.0, *(0.0,) * (len(EXTRA) - 1)), bias=0.0))
    region = 1 / (1 + np.exp(2))
    assert score(found, logits, images, targets, unsure).tolist() == pytest.approx([first, 0.5, second, region])


def test_only_boxes_of_other_objects_are_worthwhile() -> None:
    truths = np.array([LEFT, RIGHT])
    boxes = np.array([LEFT, LEFT, RIGHT, WHOLE])
    one = Candidates(boxes, np.zeros((4, 1)), 1.0)
    assert worthwhile(one, truths).tolist() == [0, 0, 1, 1]
    assert worthwhile(one, np.zeros((0, 4))).tolist() == [0, 0, 0, 0]


def test_what_tells_worthwhile_boxes_is_learned() -> None:
    rng = np.random.default_rng(3)
    photos, truths = [], []
    for _ in range(80):
        good = rng.random(6) < 0.3
        signs = rng.normal(0, 1, (7, len(EXTRA)))
        signs[1:, 4] += 2 * good
        boxes = [RIGHT, *(LEFT if one else (0.4, 0.4, 0.6, 0.6) for one in good)]
        photos.append(Candidates(np.array(boxes), signs, 0.9))
        truths.append(np.array([LEFT]))
    learned = fit_extra(photos[:40], truths[:40])
    assert max(range(len(EXTRA)), key=lambda place: abs(learned.weights[place])) == 4
    kept = [chosen(photo, learned, 0.5, 1.0) for photo in photos[40:]]
    assert all(0 in boxes for boxes in kept), "the first box stays"
    right = [
        worthwhile(photo, boxes)[index]
        for photo, boxes, stays in zip(photos[40:], truths[40:], kept, strict=True)
        for index in stays
        if index
    ]
    assert len(right) > 30
    assert np.mean(right) > 0.6, "two times their share of all"


def test_it_is_used_as_it_was_learned(network: Network, plain: Parameters) -> None:
    extra = Calibration(tuple(np.random.default_rng(5).normal(0, 0.5, len(EXTRA)).tolist()), 0.2)
    parameters = dataclasses.replace(plain, class_share=1e-6, extra=extra, extra_score=0.3, splits=(0.3, 0.6))
    localizer = Localizer(network, parameters)
    patches = [("red", (4, 4, 40, 50)), ("red", (70, 60, 120, 120)), ("blue", (60, 4, 100, 30))]
    image = picture((128, 128), *patches)  # type: ignore[arg-type]
    [one] = candidates(localizer, iter([Photo.of(image)]))
    [found] = localizer.localize([image], max_boxes=20)
    kept = chosen(one, extra, parameters.extra_score, parameters.overlap)
    assert 2 < len(kept) < len(one.boxes), "some are refused"
    np.testing.assert_allclose([item.box for item in found], one.boxes[kept] * 128, atol=1e-4)
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)


def test_nothing_hot_is_no_box(network: Network, plain: Parameters) -> None:
    localizer = Localizer(network, dataclasses.replace(plain, extra=EVEN))
    [one] = candidates(localizer, iter([Photo.of(picture((64, 64)))]))
    assert one.boxes.shape == (0, 4)
    assert chosen(one, EVEN, 0.0, 0.5) == []
    assert localizer.localize([picture((64, 64))], max_boxes=3) == [[]]
    assert draw([np.zeros((1, 4, 4))], np.zeros((1, 4, 4)), plain, several=True) == []


def test_weights_of_another_number_of_signs_are_refused(network: Network, plain: Parameters) -> None:
    wrong = dataclasses.replace(plain, extra=Calibration((1.0,), 0.0))
    localizer = Localizer(network, plain)
    with pytest.raises(ContractError, match="tune the project again"):
        localizer.tuned(Tuning(7, localizer.version, "patches", json.loads(json.dumps(wrong.to_dict()))))
