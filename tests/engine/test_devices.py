"""What a GPU needs: pinned copies, all digits of float32. Without one it must change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from PIL import Image
from random_networks import build_random
from tiny import distance, noise

from worker.attribution import Attributor
from worker.attribution.devices import all_digits, upload
from worker.localizer import Localizer
from worker.networks import load_network

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def _tf32() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def tf32() -> Iterator[None]:
    """Both switched on, as fast programs have it."""
    before = _tf32()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_on_the_processor_images_stay_where_they_are() -> None:
    images = noise(2, 4, 6, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    assert upload(images, CPU, torch.float32).data_ptr() == images.data_ptr()


def test_images_come_in_the_format_and_layout_that_is_wanted() -> None:
    images = noise(2, 4, 6)
    found = upload(images, CPU, torch.float32)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, images.float())


@pytest.mark.usefixtures("tf32")
def test_float32_keeps_all_digits_on_a_gpu_and_settings_come_back() -> None:
    def fail() -> None:
        assert _tf32() == (False, False)
        raise KeyError

    with pytest.raises(KeyError), all_digits(torch.device("cuda")):
        fail()
    assert _tf32() == (True, True)
    with all_digits(CPU):
        assert _tf32() == (True, True)


@needs_gpu
@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("name", ["vgg11", "resnet18", "squeezenet1_1"])
def test_a_gpu_gives_the_same_maps(name: str) -> None:
    module = build_random(name, dtype=torch.float32)
    images, targets = noise(3, 64, 64, dtype=torch.float32), torch.tensor([0, 3, 1])
    right = Attributor(module, input_size=(64, 64), precision=torch.float64)(images, targets)
    for precision, bound in ((torch.float64, 1e-12), (torch.float32, 1e-3), (torch.bfloat16, 0.5)):
        found = Attributor(module, input_size=(64, 64), precision=precision, device="cuda")(images, targets)
        assert found.deeplift.device.type == "cuda"
        assert distance(found.deeplift.cpu(), right.deeplift) <= bound
        assert distance(found.guided.cpu(), right.guided) <= bound


@needs_gpu
def test_copies_to_a_gpu_do_not_wait() -> None:
    images = noise(8, 224, 224, dtype=torch.float32)
    torch.cuda._sleep(500_000_000)  # keeps the GPU busy for a good part of a second
    found = upload(images, torch.device("cuda"), torch.float32)
    assert not torch.cuda.current_stream().query(), "the copy waited for the GPU"
    assert torch.equal(found.cpu(), images)


@needs_gpu
def test_photos_are_prepared_while_a_gpu_computes_and_boxes_are_the_same() -> None:
    photos = [Image.effect_noise((90 + 7 * i, 80), 60).convert("RGB") for i in range(5)]
    boxes = [
        [found[0].box for found in Localizer(load_network("efficientnet_lite0"), **where).localize(photos)]
        for where in (
            {"precision": torch.float32, "batch": 2},
            {"precision": torch.float32, "batch": 2, "device": "cuda"},
        )
    ]
    for ours, right in zip(*boxes, strict=True):
        assert ours == pytest.approx(right, abs=1)
