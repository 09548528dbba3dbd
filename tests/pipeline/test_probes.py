"""Probe boxes against slow and obvious twins, and heat maps whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import probes


def rectangle(x0: int, y0: int, x1: int, y1: int, size: int = 40) -> np.ndarray:
    heat = np.zeros((size, size))
    heat[y0:y1, x0:x1] = 1
    return heat


ends = st.tuples(st.integers(0, 39), st.integers(0, 39)).filter(lambda pair: pair[0] < pair[1])


@given(ends, ends)
def test_a_rectangle_comes_back(across: tuple[int, int], down: tuple[int, int]) -> None:
    (x0, x1), (y0, y1) = across, down
    [box] = probes.union_boxes(rectangle(x0, y0, x1, y1)[None], 0.5)
    assert box == pytest.approx((x0 / 40, y0 / 40, x1 / 40, y1 / 40))


def test_edges_lie_between_cells() -> None:
    x = np.arange(80) + 0.5
    bump = np.exp(-0.5 * ((x - 41.3) / 8) ** 2)
    [box] = probes.union_boxes(np.outer(np.ones(80), bump)[None], 0.5)
    half = 8 * np.sqrt(2 * np.log(2 / bump.max()))
    assert box[0] * 80 == pytest.approx(41.3 - half, abs=0.05)
    assert box[2] * 80 == pytest.approx(41.3 + half, abs=0.05)
    assert (box[1], box[3]) == (0, 1)


def test_without_heat_the_box_is_the_whole_image() -> None:
    assert probes.union_boxes(np.zeros((1, 8, 8)), 0.5).tolist() == [[0, 0, 1, 1]]
    assert np.isfinite(probes.probe_boxes(np.zeros((1, 8, 8)), [np.zeros((1, 8, 8))])).all()


def test_rows_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(0)
    heat, source = rng.random((5, 20, 20)) ** 3, rng.random((5, 20, 20))
    together = probes.probe_boxes(heat, [source])
    assert together.shape == (5, probes.count(1), 4)
    for row in range(5):
        alone = probes.probe_boxes(heat[row : row + 1], [source[row : row + 1]])
        np.testing.assert_allclose(alone[0], together[row])


def test_a_mirrored_map_gives_mirrored_probes() -> None:
    rng = np.random.default_rng(1)
    heat, source = rng.random((4, 24, 24)) ** 4, rng.random((4, 24, 24))
    plain = probes.probe_boxes(heat, [source])
    mirrored = probes.probe_boxes(heat[:, :, ::-1], [source[:, :, ::-1]])
    np.testing.assert_allclose(mirrored[..., [0, 2]], 1 - plain[..., [2, 0]], atol=1e-6)
    np.testing.assert_allclose(mirrored[..., [1, 3]], plain[..., [1, 3]], atol=1e-6)


def test_turned_maps_give_turned_probes() -> None:
    rng = np.random.default_rng(2)
    heat = rng.random((3, 24, 24)) ** 4
    plain = probes.probe_boxes(heat, [])
    turned = probes.probe_boxes(heat.transpose(0, 2, 1), [])
    np.testing.assert_allclose(turned, plain[..., [1, 0, 3, 2]], atol=1e-6)


def test_the_strongest_region_stands_alone_the_union_does_not() -> None:
    heat = rectangle(2, 2, 10, 10) + 0.8 * rectangle(20, 25, 36, 38)
    found = probes.probe_boxes(heat[None], [])[0]
    union, region = found[2], found[len(probes.UNION) + 1]
    assert union == pytest.approx((2 / 40, 2 / 40, 36 / 40, 38 / 40), abs=0.02)
    assert region == pytest.approx((20 / 40, 25 / 40, 36 / 40, 38 / 40), abs=0.02)


def test_quantiles_of_a_flat_map_are_the_shares() -> None:
    found = probes.probe_boxes(np.ones((1, 50, 50)), [])[0]
    first = len(probes.UNION) + len(probes.REGION)
    for place, share in enumerate(probes.QUANTILES[0][1]):
        assert found[first + place] == pytest.approx((share, share, 1 - share, 1 - share), abs=1e-6)


def test_quantiles_leave_out_their_share() -> None:
    rng = np.random.default_rng(3)
    heat = rng.random((1, 30, 30))
    for share in (0.02, 0.1, 0.25):
        [low, high] = probes._quantiles(heat.sum(axis=1), [share])
        fine = np.repeat(heat.sum(axis=1)[0], 1000) / 1000
        cumulated = fine.cumsum() / fine.sum()
        assert low[0] == pytest.approx(np.searchsorted(cumulated, share) / len(fine), abs=1e-4)
        assert high[0] == pytest.approx(np.searchsorted(cumulated, 1 - share) / len(fine), abs=1e-4)
