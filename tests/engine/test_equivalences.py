"""Ways of asking that must not matter: in place or not, alone or together, in pieces or at once."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tiny import EXACT, noise, seeded
from torch import Tensor, nn

from worker.attribution import Attribution, Attributor

SIZE = (18, 20)


class _Net(nn.Module):
    """Every way of calling ReLUs and adding, in place or not; dropouts hand the same tensor on."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 6, 3, groups=2)
        self.relu, self.relu6, self.silu = nn.ReLU(inplace), nn.ReLU6(inplace), nn.SiLU(inplace)
        self.drop, self.pool = nn.Dropout2d(0.5, inplace), nn.MaxPool2d(3, 2, ceil_mode=True)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6, 10), nn.ReLU(inplace), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.pool(self.drop(x))
        y = F.relu(self.second(x), inplace=self.inplace)
        if self.inplace:
            y += x
            y = y.relu_()
        else:
            y = (y + x).relu()
        z = torch.cat([self.relu6(self.second(y)), self.silu(self.second(x))], 1)
        z = self.relu(F.max_pool2d(self.third(z), 2))
        return self.head(F.adaptive_avg_pool2d(z, 1))


def _engine(module: nn.Module, dtype: torch.dtype = EXACT, **options: object) -> Attributor:
    options = {"input_size": SIZE, "precision": dtype, "layers": ["pool", "silu"], "gradient": True, **options}
    return Attributor(module, **options)  # type: ignore[arg-type]


def _maps(found: Attribution) -> dict[str, Tensor]:
    assert found.gradient is not None
    maps = {"deeplift": found.deeplift, "guided": found.guided, "gradient": found.gradient, "delta": found.delta}
    return {**maps, **found.layers}


def _close(found: Attribution, right: Attribution, tolerance: float = 1e-13) -> None:
    assert torch.equal(found.rows, right.rows)
    assert torch.equal(found.targets, right.targets)
    torch.testing.assert_close(found.logits, right.logits, rtol=0, atol=tolerance)
    for (name, a), b in zip(_maps(found).items(), _maps(right).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, msg=name)


IMAGES = noise(5, *SIZE) * 2
TARGETS = torch.tensor([0, 1, 3, 2, 1])


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return seeded(lambda: _Net(inplace=False))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_in_place_is_the_same_as_out_of_place(dtype: torch.dtype) -> None:
    plain, inplace = (seeded(lambda flag=flag: _Net(inplace=flag), dtype=dtype) for flag in (False, True))
    images = IMAGES.to(dtype)
    a, b = _engine(plain, dtype)(images, TARGETS), _engine(inplace, dtype)(images, TARGETS)
    for (name, x), y in zip(_maps(a).items(), _maps(b).values(), strict=True):
        assert torch.equal(x, y), name
    with torch.no_grad():
        torch.testing.assert_close(inplace(images.clone()), b.logits, rtol=0, atol=1e-5)


def _each(engine: Attributor, rows: Tensor, targets: Tensor) -> list[Attribution]:
    return [engine(IMAGES[row : row + 1], target[None]) for row, target in zip(rows, targets, strict=True)]


@pytest.mark.parametrize("reference", [0.0, "blur", "own"])
def test_a_batch_is_the_same_as_its_images_alone(module: nn.Module, reference: float | str) -> None:
    options: dict[str, object] = {"reference": noise(1, *SIZE, seed=3) if reference == "own" else reference}
    together = _engine(module, **options)(IMAGES, TARGETS)
    alone = _each(_engine(module, **options), torch.arange(5), TARGETS)
    for i, single in enumerate(alone):
        for (name, a), b in zip(_maps(together).items(), _maps(single).values(), strict=True):
            torch.testing.assert_close(a[i : i + 1], b, rtol=0, atol=1e-13, msg=name)


@pytest.mark.parametrize("reference", [0.0, "blur"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
def test_pieces_are_the_same_as_all_at_once(module: nn.Module, chunk: int, reference: float | str) -> None:
    def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
        assert logits.shape == (5, 4)
        return torch.tensor([4, 0, 0, 2, 0, 4, 0]), torch.tensor([3, 1, 0, 2, 2, 0, 1])

    whole = _engine(module, reference=reference, chunk=64)(IMAGES, choose)
    _close(_engine(module, reference=reference, chunk=chunk)(IMAGES, choose), whole)
    assert whole.rows.tolist() == [4, 0, 0, 2, 0, 4, 0]


class _Wide(nn.Module):
    """Large enough that several tiles are one pass's images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(48, 4, 3, padding=1)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        return self.head(F.relu(self.second(x)).mean((2, 3)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk", [2, 4])
def test_tiles_pieces_and_single_images_are_the_same(dtype: torch.dtype, tolerance: float, chunk: int) -> None:
    module, images = seeded(_Wide, dtype=dtype), noise(5, 160, 160, dtype=dtype)
    options: dict[str, object] = {
        "input_size": (160, 160),
        "precision": dtype,
        "layers": ["second"],
        "reference": 0.1,
    }
    whole, pieces = (Attributor(module, chunk=size, **options) for size in (8, chunk))  # type: ignore[arg-type]
    assert 1 <= whole._plan.tile < 4, "several tiles, or this tests nothing"
    right = whole(images, TARGETS)
    found = pieces(images, TARGETS)
    alone = [whole(images[i : i + 1], TARGETS[i : i + 1]) for i in range(5)]
    for name in ("deeplift", "guided"):
        scale = float(getattr(right, name).norm())
        assert float((getattr(found, name) - getattr(right, name)).norm()) <= tolerance * scale
        singles = torch.cat([getattr(one, name) for one in alone])
        assert float((singles - getattr(right, name)).norm()) <= tolerance * scale


def test_rows_may_leave_images_out_or_be_none(module: nn.Module) -> None:
    right = _engine(module)(IMAGES, TARGETS)
    for chunk in (2, 8):
        engine = _engine(module, chunk=chunk)
        some = engine(IMAGES, lambda _: (torch.tensor([3]), torch.tensor([2])))
        torch.testing.assert_close(some.deeplift, right.deeplift[3:4], rtol=0, atol=1e-13)
        none = engine(IMAGES, lambda _: (torch.empty(0, dtype=torch.int64),) * 2)
        assert none.deeplift.shape == (0, 3, *SIZE)
        assert none.logits.shape == (5, 4)
        assert none.layers["pool"].shape[0] == 0


def test_a_call_does_not_depend_on_those_before_it(module: nn.Module) -> None:
    """Memory and the reference's activations are kept between calls."""
    engine = _engine(module)
    first = engine(IMAGES, TARGETS)
    held = first.deeplift.clone()
    engine(IMAGES[:2] * -3, TARGETS[:2])
    _close(engine(IMAGES, TARGETS), first, tolerance=0)
    assert torch.equal(first.deeplift, held), "a result must not change afterwards"


def test_layout_and_type_of_the_images_do_not_matter(module: nn.Module) -> None:
    right = _engine(module)(IMAGES.float().double(), TARGETS)
    _close(
        _engine(module)(IMAGES.float().contiguous(memory_format=torch.channels_last), TARGETS), right, tolerance=0
    )


def test_the_plain_gradient_is_that_of_torch(module: nn.Module) -> None:
    images = IMAGES.clone().requires_grad_()
    module(images)[torch.arange(5), TARGETS].sum().backward()
    found = _engine(module)(IMAGES, TARGETS)
    torch.testing.assert_close(found.gradient, images.grad, rtol=0, atol=1e-13)


def test_contributions_at_inner_layers_sum_to_the_same_change(module: nn.Module) -> None:
    engine = _engine(module, layers=["norm", "relu", "pool", "third"])
    found = engine(IMAGES, TARGETS)
    sums = found.deeplift.sum((1, 2, 3))
    assert found.delta.abs().max() <= 1e-13
    for name in ("norm", "pool"):  # what lies before them, and every path, goes through these two
        torch.testing.assert_close(found.layers[name].sum((1, 2)), sums, rtol=0, atol=1e-13, msg=name)


def test_completeness_is_reported_to_who_asks(module: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    engine = _engine(module)
    with caplog.at_level(logging.INFO):
        engine(IMAGES, TARGETS)
    assert not caplog.records
    with caplog.at_level(logging.DEBUG):
        found = engine(IMAGES, TARGETS)
    (record,) = caplog.records
    assert record.getMessage() == f"completeness: convergence delta at most {found.delta.abs().max():.2g} logits"


Make = Callable[[Tensor], Tensor]
EXTREMES: dict[str, tuple[Make, Make]] = {
    "flat": (lambda x: torch.full_like(x, 0.3), torch.zeros_like),
    "two tones": (lambda x: (x > 0).to(x.dtype), torch.zeros_like),
    "equal to the reference": (lambda x: x[:1], lambda x: x[:1]),
    "both flat and equal": (torch.zeros_like, torch.zeros_like),
    "equal but for one pixel": (lambda x: x[:1] + F.one_hot(torch.tensor(7), 20) * (x[:1] > 1.9), lambda x: x[:1]),
    "a hair apart": (lambda x: x[:1] + 1e-14, lambda x: x[:1]),
    "huge": (lambda x: x * 1e6, lambda x: -x[:1] * 1e6),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_ties_and_extremes(module: nn.Module, name: str) -> None:
    image, reference = (make(IMAGES)[:1] for make in EXTREMES[name])
    found = _engine(module, reference=reference)(image, torch.tensor([2]))
    assert all(part.isfinite().all() for part in _maps(found).values())
    assert found.delta.abs().max() <= 1e-9
    if "equal" in name and "but" not in name:
        assert not found.deeplift.any()
        assert found.gradient is not None
        assert found.gradient.any()
        assert found.guided.any()


def test_multipliers_at_the_reference_are_the_gradient(module: nn.Module) -> None:
    """Where nothing changed the multiplier is the gradient: a hair beside it, contribution / change comes close."""
    step = 1e-9
    image = IMAGES[:1] + step
    found = _engine(module, reference=IMAGES[:1])(image, torch.tensor([2]))
    torch.testing.assert_close(found.deeplift / (image - IMAGES[:1]), found.gradient, rtol=1e-5, atol=1e-7)
