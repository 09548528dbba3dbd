"""What is learned of labels: what is there, where it helps, and never from the photos that it is judged by."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from worker.heads import Competition, Example, LastLayer, Learned, examples, features, last_layer, train_head
from worker.heads.competition import Table, targets
from worker.heads.examples import loosened
from worker.heads.fitting import Space, fit
from worker.heads.training import FEWEST, folds
from worker.images import Photo
from worker.networks import Network
from worker.regions import cut

D, C = 40, 6
RNG = np.random.default_rng


def last() -> LastLayer:
    """Six classes; what class c looks at is feature c."""
    return LastLayer(4 * np.eye(C, D), np.zeros(C))


def seen(label: int, count: int, seed: int, *, clear: float = 2.0) -> np.ndarray:
    """Features of things of one kind: feature 10 + label is larger."""
    values = RNG(seed).normal(size=(count, D))
    values[:, 10 + label] += clear
    return values.astype(np.float32)


def photo(name: str, kind: int, seed: int, *, clear: float = 2.0, crops: int = 2) -> Example:
    found = seen(kind, crops + 1, seed, clear=clear)
    return Example(found[0], found[1:], (name,) * crops)


def photos(counts: dict[str, int], *, clear: float = 2.0, seed: int = 0) -> list[Example]:
    return [
        photo(name, kind, 1000 * seed + 100 * kind + number, clear=clear)
        for kind, (name, count) in enumerate(counts.items())
        for number in range(count)
    ]


def outputs(learned: Learned, some: Sequence[Example]) -> tuple[np.ndarray, tuple[str, ...]]:
    assert learned.head is not None
    weights = np.frombuffer(base64.b64decode(learned.head.weights), dtype="<f4").reshape(-1, D)
    values = np.stack([one.whole for one in some]) @ weights.T + np.array(learned.head.bias)
    return values, learned.head.labels


def accuracy(learned: Learned, some: Sequence[Example]) -> float:
    values, names = outputs(learned, some)
    return float(np.mean([names[row.argmax()] in one.labels for row, one in zip(values, some, strict=True)]))


def test_two_unknown_labels_are_learned_and_the_held_out_figure_tells_the_truth() -> None:
    learned = train_head(photos({"Zorb": 30, "Quux": 30}), last(), Competition({}))
    assert learned.head is not None
    assert set(learned.head.labels) == {"Zorb", "Quux"}
    assert learned.before is not None
    assert learned.after is not None
    assert learned.before.value == 0
    true = accuracy(learned, photos({"Zorb": 300, "Quux": 300}, seed=7))
    assert true > 0.75
    assert learned.after.low <= true <= learned.after.high
    assert learned.doubt < 0.01
    assert "learned" in learned.reason


def test_the_same_photos_teach_the_same() -> None:
    some = photos({"Zorb": 12, "Quux": 9})
    assert train_head(some, last(), Competition({})) == train_head(some, last(), Competition({}))


def test_nothing_is_learned_where_labels_have_nothing_to_do_with_the_photos() -> None:
    for seed in range(5):
        learned = train_head(photos({"Zorb": 30, "Quux": 30}, clear=0.0, seed=seed), last(), Competition({}))
        assert learned.head is None
        assert "no clear gain" in learned.reason


def test_views_of_a_photo_never_judge_what_they_taught() -> None:
    """Every photo is unmistakable and its label is chance: who has seen one view knows the others."""
    rng = RNG(3)
    some = []
    for _ in range(40):
        face = rng.normal(size=D).astype(np.float32) * 5
        name = ("Zorb", "Quux")[int(rng.integers(2))]
        some.append(Example(face, np.stack([face] * 4), (name,) * 4))
    learned = train_head(some, last(), Competition({}))
    assert learned.head is None
    assert learned.after is not None
    assert learned.after.value < 0.8


def test_labels_with_too_few_photos_are_named_and_left_alone() -> None:
    learned = train_head(photos({"Zorb": 20, "Quux": 20, "Rare": FEWEST - 1}), last(), Competition({}))
    assert learned.head is not None
    assert set(learned.head.labels) == {"Zorb", "Quux"}
    assert learned.too_few == {"Rare": FEWEST - 1}


@pytest.mark.parametrize(
    ("some", "why"),
    [
        ([], "photos of each of two labels are needed"),
        (photos({"Zorb": 3, "Quux": 4}), "photos of each of two labels are needed"),
        (photos({"Zorb": 30}), "one label needs no learning"),
    ],
)
def test_too_little_to_learn_from(some: list[Example], why: str) -> None:
    learned = train_head(some, last(), Competition({}))
    assert learned.head is None
    assert why in learned.reason


def known(name: str, index: int, count: int) -> list[Example]:
    """Photos of something that the network knows as class `index`."""
    made = []
    for number in range(count):
        found = RNG(9000 + 50 * index + number).normal(size=(3, D)).astype(np.float32)
        found[:, index] += 3.0
        made.append(Example(found[0], found[1:], (name, name)))
    return made


def test_a_new_label_competes_with_those_that_have_classes() -> None:
    """Photos of the new label look like class 4 to the network; class 0 is "Cat", and class 4 nobody's."""
    new = known("Zorb", 4, 25)
    cats = known("Cat", 0, 25)
    competition = Competition({"Cat": (0, 1), "Zorb": ()})
    learned = train_head(new + cats, last(), competition)
    assert learned.head is not None
    assert learned.head.labels == ("Zorb",), "a label with classes that serve it well keeps just these"
    assert learned.before is not None
    assert learned.after is not None
    assert learned.before.value < 0.6 < 0.9 < learned.after.value
    fresh = [*known("Zorb", 4, 60)[25:], *known("Cat", 0, 60)[25:]]
    values, _ = outputs(learned, fresh)
    _, gaps = competition.rivals(last().logits(np.stack([one.whole for one in fresh])))
    named = np.where(values[:, 0] > gaps[:, 0], "Zorb", "Cat")
    assert np.mean([name in one.labels for name, one in zip(named, fresh, strict=True)]) > 0.9


def test_labels_whose_classes_serve_them_badly_are_learned_as_well() -> None:
    """ "Cat" has class 0, but its photos look like class 2; nobody could tell but from corrections."""
    competition = Competition({"Cat": (0,), "Dog": (1,)})
    learned = train_head(known("Cat", 2, 25) + known("Dog", 3, 25), last(), competition)
    assert learned.head is not None
    assert set(learned.head.labels) == {"Cat", "Dog"}
    assert learned.before is not None
    assert learned.after is not None
    assert learned.after.low > learned.before.high


def test_what_the_classes_do_well_already_is_not_learned_again() -> None:
    learned = train_head(known("Cat", 0, 25) + known("Dog", 1, 25), last(), Competition({"Cat": (0,), "Dog": (1,)}))
    assert learned.head is None
    assert learned.before is not None
    assert learned.before.value > 0.9


def test_the_label_for_all_other_classes_competes_with_all_of_them() -> None:
    competition = Competition({"Other": ()}, rest="Other")
    others = [one for index in (0, 1, 2) for one in known("Other", index, 10)]
    learned = train_head(known("Zorb", 4, 25) + others, last(), competition)
    assert learned.head is not None
    assert learned.head.labels == ("Zorb",)
    assert learned.before is not None
    assert learned.after is not None
    assert learned.before.value == pytest.approx(30 / 55)
    assert learned.after.value > 0.85


def test_a_photo_with_several_labels_is_called_right_by_any_of_them() -> None:
    one, other = photo("Zorb", 0, 1), photo("Quux", 1, 2)
    both = Example(one.whole, np.concatenate([one.crops, other.crops]), one.crop_labels + other.crop_labels)
    table = Table.of([both, one])
    assert both.labels == ("Zorb", "Quux")
    assert table.right(["Quux", "Quux"]).tolist() == [True, False]
    assert table.counts() == {"Zorb": 2, "Quux": 1}
    np.testing.assert_allclose(np.bincount(table.photo, table.importance), 1)


def test_the_level_of_a_head_is_that_of_nine_to_one() -> None:
    """Learned outputs count from the best of the network's classes: 0 is as likely as that."""
    some = photos({"Zorb": 25, "Quux": 25}, clear=4.0)
    values, _ = outputs(
        train_head(some, last(), Competition({})), photos({"Zorb": 50, "Quux": 50}, clear=4.0, seed=5)
    )
    own = np.log(np.exp(values).sum(1))
    assert np.exp(own).mean() == pytest.approx(9, rel=0.35)


def test_parts_of_a_cross_validation_have_photos_of_every_label() -> None:
    table = Table.of(photos({"Zorb": 11, "Quux": 30, "Rare": 10}))
    fold = folds(table)
    assert set(fold) == set(range(10))
    first = np.array([labels[0] for labels in table.labels])
    for number in range(10):
        assert set(first[fold == number]) == {"Zorb", "Quux", "Rare"}
    assert np.ptp(np.bincount(fold)) <= 1


def problem() -> tuple[np.ndarray, ...]:
    rng = RNG(0)
    inputs = rng.normal(size=(30, 5))
    labels = [("a", "b", "c")[index] for index in rng.integers(3, size=30)]
    gaps = -rng.uniform(0, 2, (30, 1))
    wanted, rivals = targets(("a", "b"), ("c",), labels, gaps)
    return inputs, wanted, rivals, rng.uniform(0.5, 1.5, 30)


def objective(flat: np.ndarray, strength: float) -> float:
    """The penalised loss, written down once more and without its derivative."""
    inputs, wanted, rivals, importance = problem()
    weights, bias = flat[:10].reshape(5, 2), flat[10:]
    values = np.concatenate([inputs @ weights + bias, rivals], 1)
    log = values - np.log(np.exp(values).sum(1, keepdims=True))
    surprise = -(wanted * log).sum(1)
    return float((importance * surprise).sum() / importance.sum() + strength / 2 * (weights**2).sum())


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_a_fit_is_the_lowest_point_wherever_it_starts(strength: float) -> None:
    found = fit(*problem(), strength)
    flat = np.concatenate([part.ravel() for part in found])
    least = objective(flat, strength)
    for step in RNG(1).normal(size=(50, 12)) * 0.05:
        assert objective(flat + step, strength) > least
    again = fit(*problem(), strength, (np.full((5, 2), 3.0), np.full(2, -2.0)))
    np.testing.assert_allclose(np.concatenate([part.ravel() for part in again]), flat, atol=2e-3)


def test_targets_are_distributions_and_a_labels_own_classes_are_no_rivals_of_it() -> None:
    wanted, rivals = targets(("a", "b"), ("b", "c"), ("a", "b", "c", "d"), np.full((4, 2), -1.0))
    np.testing.assert_allclose(wanted.sum(1), 1)
    assert wanted.argmax(1).tolist() == [0, 1, 4, 2]
    assert np.isneginf(rivals).nonzero()[0].tolist() == [1]
    assert np.isneginf(rivals).nonzero()[1].tolist() == [1]


def test_a_space_keeps_all_that_lies_between_examples_and_folds_back_exactly() -> None:
    rng = RNG(2)
    layer = LastLayer(rng.normal(size=(C, D)), rng.normal(size=C))
    values = rng.normal(size=(12, D)).astype(np.float32)
    space = Space.of(values, layer)
    assert space.axes.shape[1] == 11
    inputs = space.coordinates(values)
    logits = layer.logits(values)
    moved = values.astype(float) - values.mean(0)
    one = moved @ moved.T / values.astype(float).var(0).sum()
    other = (logits - logits.mean(0)) @ (logits - logits.mean(0)).T / logits.var(0).sum()
    np.testing.assert_allclose(inputs @ inputs.T, 50 * (one + other), rtol=1e-6, atol=1e-6)
    weights, bias = rng.normal(size=(11, 3)), rng.normal(size=3)
    fresh = rng.normal(size=(4, D)).astype(np.float32)
    folded, shift = space.folded(weights, bias)
    np.testing.assert_allclose(fresh @ folded.T + shift, space.coordinates(fresh) @ weights + bias, atol=1e-6)


def test_equal_photos_do_no_harm() -> None:
    same = [dataclasses.replace(one) for one in photos({"Zorb": 1}) for _ in range(12)]
    renamed = [Example(one.whole, one.crops, ("Quux",) * 2) for one in same]
    assert train_head(same + renamed, last(), Competition({})).head is None


def test_examples_are_features_of_crops_with_a_margin_and_of_the_photo(
    network_of: Callable[..., Network],
) -> None:
    network = network_of()
    picture = Photo.of(Image.fromarray(RNG(4).integers(0, 256, (80, 120, 3), dtype=np.uint8)))
    small, large = (0.4, 0.5, 0.6, 0.7), (0.0, 0.1, 0.5, 0.9)
    (example,) = examples(network, [(picture, [("Zorb", small), ("", large), ("Quux", large)]), (picture, [])])
    assert example.crop_labels == ("Quux", "Quux", "Zorb", "Zorb")
    assert example.labels == ("Quux", "Zorb")
    assert loosened(small) == pytest.approx((0.32, 0.42, 0.68, 0.78))
    assert loosened(large) == pytest.approx((0.0, 0.0, 0.7, 1.0))
    again = features(network, [picture, cut(picture, loosened(large)), cut(picture, loosened(small))]).numpy()
    np.testing.assert_allclose(example.whole, again[0], atol=1e-5)
    np.testing.assert_allclose(example.crops[[0, 2]], again[1:], atol=1e-5)
    assert np.abs(example.crops[0] - example.crops[1]).max() > 1e-3, "the mirror image must differ"
    layer = last_layer(network)
    assert layer.weight.shape == (len(network.classes), example.whole.size)
