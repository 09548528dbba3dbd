"""Smoothing, masking and mixing against slow and obvious twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from worker import heatmap
from worker.parameters import PAPER, Parameters, Source


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
def test_smoothing_is_a_reflected_gaussian(sigma: float) -> None:
    maps = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    got = heatmap.smooth(maps, 40, sigma)
    for one, smooth in zip(maps, got, strict=True):
        want = ndimage.gaussian_filter(one.numpy(), sigma * 40, mode="reflect", truncate=4)
        np.testing.assert_allclose(smooth.numpy(), want, atol=2e-3)


def test_finer_maps_are_averaged() -> None:
    maps = torch.rand(2, 24, 36)
    got = heatmap.smooth(maps, 12, 0.0)
    want = maps.reshape(2, 12, 2, 12, 3).mean((2, 4))
    torch.testing.assert_close(got, want)


def test_coarser_maps_are_interpolated() -> None:
    maps = torch.rand(2, 7, 7)
    got = heatmap.smooth(maps, 28, 0.0)
    want = torch.nn.functional.interpolate(maps[:, None], (28, 28), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("size", [7, 14, 56, 100, 224])
def test_constants_stay_constant(size: int) -> None:
    torch.testing.assert_close(
        heatmap.smooth(torch.full((1, size, size), 2.5), 56, 0.05), torch.full((1, 56, 56), 2.5)
    )


def test_soft_mask() -> None:
    mask = heatmap.border_mask(100, 0.6, "soft")
    assert mask[0, 0] == pytest.approx(0.4, abs=0.02)
    assert mask[50, 50] == pytest.approx(1.0, abs=0.001)
    assert mask[50, 0] == pytest.approx(0.7, abs=0.01)
    torch.testing.assert_close(mask, mask.flip(0))
    torch.testing.assert_close(mask, mask.T)


def test_hard_mask() -> None:
    mask = heatmap.border_mask(20, 0.1, "hard")
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[2:18, 2:18].min() == 1
    assert mask.sum() == 16 * 16


def test_geometric_needs_all_arithmetic_any() -> None:
    left, right = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    left[:, :, :3] = 1
    right[:, :, 1:] = 5
    both = heatmap.mix([left, right], [1, 1], "geometric")
    either = heatmap.mix([left, right], [1, 3], "arithmetic")
    torch.testing.assert_close(both[0, 0], torch.tensor([0.0, 1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(either[0, 0], torch.tensor([0.25, 1.0, 1.0, 0.75]))


def test_rows_do_not_touch_each_other() -> None:
    parameters = Parameters(sources=(Source("a"), Source("b", sigma=0.1, part="absolute")))
    maps = {"a": torch.randn(5, 14, 14), "b": torch.randn(5, 224, 224)}
    together = heatmap.heat(maps, parameters)
    for row in range(5):
        alone = heatmap.heat({name: values[row : row + 1] for name, values in maps.items()}, parameters)
        torch.testing.assert_close(together[row], alone[0])


def test_range_and_scale() -> None:
    maps = {"deeplift": torch.randn(3, 224, 224), "guided": torch.randn(3, 224, 224)}
    heat = heatmap.heat(maps, PAPER)
    assert heat.shape == (3, 56, 56)
    assert heat.min() >= 0
    torch.testing.assert_close(heat.amax((1, 2)), torch.ones(3))
    louder = heatmap.heat({name: 1000 * values for name, values in maps.items()}, PAPER)
    torch.testing.assert_close(louder, heat)


def test_without_evidence_the_map_is_empty() -> None:
    maps = {"deeplift": torch.zeros(1, 224, 224), "guided": -torch.ones(1, 224, 224)}
    assert heatmap.heat(maps, PAPER).max() == 0


@pytest.mark.parametrize("field", ["mix", "border_kind"])
def test_unknown_kinds_are_named(field: str) -> None:
    parameters = Parameters(**{field: "odd"})
    with pytest.raises(ValueError, match=f"{field} is 'odd'"):
        heatmap.heat({"deeplift": torch.rand(1, 8, 8), "guided": torch.rand(1, 8, 8)}, parameters)


def test_unknown_part_is_named() -> None:
    with pytest.raises(ValueError, match="part is 'odd'"):
        heatmap.heat({"a": torch.rand(1, 8, 8)}, Parameters(sources=(Source("a", part="odd"),)))
