"""Small networks and images for the engine's tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from worker.attribution import Attribution, Attributor

EXACT = torch.float64


def seeded(make: Callable[[], nn.Module], seed: int = 0, dtype: torch.dtype = EXACT) -> nn.Module:
    """A module whose random weights are the same each time, in inference mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                if part.affine:
                    nn.init.uniform_(part.weight, 0.5, 1.5)
                    nn.init.uniform_(part.bias, -0.5, 0.5)
                assert isinstance(part.running_mean, Tensor)
                assert isinstance(part.running_var, Tensor)
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 1.5)
    return module.to(dtype).eval()


def noise(count: int, height: int, width: int, *, seed: int = 0, dtype: torch.dtype = EXACT) -> Tensor:
    """(count, 3, height, width), normally distributed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, height, width, generator=generator, dtype=EXACT).to(dtype)


def first_channel(*layers: nn.Module) -> nn.Sequential:
    """The layers on the first channel of an image alone; so that examples of one channel can be written down."""
    pick = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.zeros_(pick.weight)
    nn.init.ones_(pick.weight[0, 0])
    return nn.Sequential(pick, *layers)


def weigh(*weights: float, bias: float = 0.0) -> nn.Sequential:
    """Flatten, and one logit: the weighted sum."""
    linear = nn.Linear(len(weights), 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([weights]))
        linear.bias.fill_(bias)
    return nn.Sequential(nn.Flatten(), linear)


def as_image(rows: list[list[float]], dtype: torch.dtype = EXACT) -> Tensor:
    """(1, 3, H, W) with the rows as first channel."""
    image = torch.zeros(1, 3, len(rows), len(rows[0]), dtype=dtype)
    image[0, 0] = torch.tensor(rows, dtype=dtype)
    return image


def attribute(
    module: nn.Module,
    image: list[list[float]],
    reference: list[list[float]],
    *,
    dtype: torch.dtype = EXACT,
    layers: tuple[str, ...] = (),
    target: int = 0,
) -> Attribution:
    """All maps of a `first_channel` network for one image."""
    engine = Attributor(
        module.to(dtype),
        input_size=(len(image), len(image[0])),
        reference=as_image(reference, dtype),
        precision=dtype,
        layers=layers,
        gradient=True,
    )
    return engine(as_image(image, dtype), torch.tensor([target]))


def values(maps: Tensor | None) -> list[list[float]]:
    """The first row's first channel; the others, which such networks do not read, must be zero."""
    assert maps is not None
    assert not maps[0, 1:].any()
    found: list[list[float]] = maps[0, 0].tolist()
    return found


def distance(found: Tensor, right: Tensor) -> float:
    """‖found − right‖ / ‖right‖, of all values together."""
    return float((found.double() - right.double()).norm() / right.double().norm())
