"""A GPU that runs out of memory: smaller pieces, the same maps."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

import pytest
import torch
from tiny import EXACT, noise, seeded
from torch import Tensor, nn

from worker.attribution import Attributor
from worker.attribution.passes import run_forward

CLASSES = torch.tensor([0, 3, 1, 2, 0, 1])


class SmallMemory:
    """Stands before the forward pass and fails as CUDA's allocator does where more than `most` images come."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []
        self.error: RuntimeError = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def __call__(self, plan: object, images: Tensor, *args: object) -> object:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return run_forward(plan, images, *args)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 4)
        )
    )


@pytest.fixture
def attributor(module: nn.Module) -> Attributor:
    return Attributor(module, input_size=(8, 8), precision=EXACT, chunk=8)


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], SmallMemory]:
    def install(most: int) -> SmallMemory:
        memory = SmallMemory(most)
        monkeypatch.setattr("worker.attribution.attributor.run_forward", memory)
        return memory

    return install


def test_halves_the_batch_and_finds_the_same(
    attributor: Attributor, shrink: Callable[[int], SmallMemory], caplog: pytest.LogCaptureFixture
) -> None:
    images = noise(6, 8, 8)
    expected = attributor(images, CLASSES)
    memory = shrink(2)
    with caplog.at_level(logging.WARNING):
        found = attributor(images, CLASSES)
    assert memory.sizes == [6, 4, 2, 2, 2]
    for name in ("logits", "rows", "targets", "deeplift", "guided", "delta"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-12)
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory on cpu: going on with 4 images at a time",
        "out of memory on cpu: going on with 2 images at a time",
    ]


def test_keeps_what_it_learned(attributor: Attributor, shrink: Callable[[int], SmallMemory]) -> None:
    memory = shrink(2)
    attributor(noise(6, 8, 8), CLASSES)
    memory.sizes.clear()
    attributor(noise(6, 8, 8, seed=1), CLASSES)
    assert memory.sizes == [2, 2, 2]


def test_gives_up_where_one_image_is_too_much(attributor: Attributor, shrink: Callable[[int], SmallMemory]) -> None:
    memory = shrink(0)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        attributor(noise(6, 8, 8), CLASSES)
    assert memory.sizes == [6, 4, 2, 1]
    memory.most = 8  # another program has ended: works again
    assert attributor(noise(1, 8, 8), CLASSES[:1]).deeplift.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_libraries_that_lack_memory_say_so_in_their_own_words(
    attributor: Attributor, shrink: Callable[[int], SmallMemory], words: str
) -> None:
    memory = shrink(3)
    memory.error = RuntimeError(words)
    assert attributor(noise(6, 8, 8), CLASSES).deeplift.shape == (6, 3, 8, 8)
    assert memory.sizes == [6, 4, 2, 2, 2]


def test_other_errors_are_no_lack_of_memory(attributor: Attributor, shrink: Callable[[int], SmallMemory]) -> None:
    memory = shrink(0)
    memory.error = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    with pytest.raises(RuntimeError, match="EXECUTION_FAILED"):
        attributor(noise(6, 8, 8), CLASSES)
    assert memory.sizes == [6]


def test_attributors_that_share_layers_share_what_they_learned_and_let_go(
    module: nn.Module, attributor: Attributor, shrink: Callable[[int], SmallMemory]
) -> None:
    other = Attributor(module, input_size=(8, 8), precision=EXACT, chunk=8, like=attributor)
    attributor(noise(6, 8, 8), CLASSES)
    held = [weakref.ref(part) for parts in other._shared.workspace._free.values() for part in parts]
    assert held
    memory = shrink(2)
    attributor(noise(6, 8, 8, seed=1), CLASSES)
    assert not any(part() is not None for part in held), "the other one still holds what was to be let go"
    memory.sizes.clear()
    other(noise(6, 8, 8), CLASSES)
    assert memory.sizes == [2, 2, 2]
