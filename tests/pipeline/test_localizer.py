"""The six steps on a network whose evidence is known: which class, and exactly where."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pipeline.conftest import picture
from worker.boxes import iou
from worker.contract import Model
from worker.images import Photo, decode
from worker.localizer import Localizer
from worker.networks import Network
from worker.parameters import Parameters, Source


@pytest.fixture
def localizer(network: Network, plain: Parameters) -> Localizer:
    return Localizer(network, plain)


def overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    return float(iou(np.array(box), np.array(other))[0, 0])


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (300, 1000), (50, 40)])
def test_boxes_are_in_pixels_of_the_image(localizer: Localizer, size: tuple[int, int]) -> None:
    width, height = size
    box = (width // 4, height // 8, width // 2, height * 3 // 4)
    [[found]] = localizer.localize([picture(size, ("green", box))])
    assert (found.label, found.class_index) == ("green", 1)
    assert found.box == pytest.approx(box, abs=max(size) / 64)
    assert overlap(found.box, box) > 0.9


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(24, 60),
    st.integers(24, 60),
    st.sampled_from(["red", "blue"]),
)
def test_any_rectangle(localizer: Localizer, x: int, y: int, width: int, height: int, colour: str) -> None:
    box = (x, y, x + width, y + height)
    [[found]] = localizer.localize([picture((128, 128), (colour, box))])
    assert found.label == colour
    assert overlap(found.box, box) > 0.75


def test_a_turned_photo_gives_the_same_box_as_its_upright_twin(localizer: Localizer) -> None:
    upright = picture((400, 300), ("red", (30, 40, 150, 200)))
    plain, turned = io.BytesIO(), io.BytesIO()
    upright.save(plain, "JPEG", quality=98)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", quality=98, exif=exif)
    photos = [decode(plain.getvalue()), decode(turned.getvalue())]
    assert photos[0].size == photos[1].size == (400, 300)
    [[first], [second]] = localizer.localize(photos)
    assert first.box == pytest.approx(second.box, abs=1)


def test_reduced_photos_give_boxes_at_the_true_size(localizer: Localizer) -> None:
    whole = picture((4000, 3000), ("red", (1000, 600, 3000, 1800)))
    data = io.BytesIO()
    whole.save(data, "JPEG", quality=95)
    photo = decode(data.getvalue())
    assert photo.image.size != (4000, 3000)
    [[found]] = localizer.localize([photo])
    assert overlap(found.box, (1000, 600, 3000, 1800)) > 0.9


def test_only_allowed_classes_compete(localizer: Localizer) -> None:
    image = picture((128, 128), ("red", (0, 0, 70, 70)), ("blue", (80, 80, 120, 120)))
    [[best]] = localizer.localize([image])
    assert best.label == "red"
    [[other]] = localizer.localize([image], classes=[1, 2])
    assert other.label == "blue"
    assert overlap(other.box, (80, 80, 120, 120)) > 0.8
    first, second, third = localizer.localize([image] * 3, classes=[[0], None, [2, 1]])
    assert [found[0].label for found in (first, second, third)] == ["red", "red", "blue"]


def test_no_class_competes(localizer: Localizer) -> None:
    image = picture((64, 64), ("red", (8, 8, 40, 40)))
    assert localizer.localize([image], classes=[]) == [[]]
    assert [len(found) for found in localizer.localize([image] * 2, classes=[[], None])] == [0, 1]
    with pytest.raises(ValueError, match="no class competes"):
        next(iter(localizer.view([image], classes=[[]])))


@pytest.mark.parametrize("classes", [[3], [-1], [[0], [1]]])
def test_classes_that_do_not_fit(localizer: Localizer, classes: list[int]) -> None:
    with pytest.raises(ValueError, match="classes"):
        localizer.localize([picture((64, 64))], classes=classes)


def test_batches_do_not_mix(localizer: Localizer) -> None:
    rng = np.random.default_rng(0)
    images = []
    for index in range(19):
        x, y = rng.integers(0, 60, 2)
        images.append(picture((128, 128), (["red", "green", "blue"][index % 3], (x, y, x + 40, y + 50))))
    together = localizer.localize(images)
    alone = [localizer.localize([image])[0] for image in images]
    for some, one in zip(together, alone, strict=True):
        assert some[0].label == one[0].label
        assert some[0].box == pytest.approx(one[0].box, abs=1e-3)


def test_no_images(localizer: Localizer) -> None:
    assert localizer.localize([]) == []


def test_without_evidence_there_is_no_box(localizer: Localizer) -> None:
    [found] = localizer.localize([picture((64, 64))])
    assert found == []


def test_scores(localizer: Localizer) -> None:
    image = picture((64, 64), ("red", (8, 8, 40, 40)))
    [[found]] = localizer.localize([image])
    assert 0 < found.score <= 1
    assert localizer.localize([image], min_score=1.01) == [[]]


def test_one_pixel_and_other_modes(localizer: Localizer) -> None:
    localizer.localize(
        [Image.new("RGB", (1, 1), (250, 10, 10)), Image.new("L", (5, 900)), Photo.of(Image.new("P", (9, 9)))]
    )


def test_several_objects_of_one_class(network: Network, plain: Parameters) -> None:
    localizer = Localizer(network, dataclasses.replace(plain, extra_score=0.0))
    patches = [("red", (4, 4, 40, 50)), ("red", (70, 60, 120, 120))]
    [found] = localizer.localize([picture((128, 128), *patches)], max_boxes=5)  # type: ignore[arg-type]
    for _, box in patches:
        assert max(overlap(item.box, box) for item in found) > 0.85
    assert len(found) == 3  # and the box around both
    assert found[0].score >= found[1].score


def test_several_classes(network: Network, plain: Parameters) -> None:
    localizer = Localizer(network, dataclasses.replace(plain, class_share=1e-4, extra_score=0.0))
    patches = [("red", (4, 4, 44, 44)), ("blue", (70, 60, 110, 98))]
    [found] = localizer.localize([picture((128, 128), *patches)], max_boxes=5)  # type: ignore[arg-type]
    assert [item.label for item in found] == ["red", "blue"]
    for item, (_, box) in zip(found, patches, strict=True):
        assert overlap(item.box, box) > 0.85


def test_version_names_everything_that_shapes_a_box(network: Network, plain: Parameters) -> None:
    first = Localizer(network, plain)
    assert first.version.startswith("boxlift-patches-")
    assert first.version == Localizer(network, plain).version
    others = [
        Localizer(network, dataclasses.replace(plain, threshold=0.51)),
        Localizer(network, dataclasses.replace(plain, sources=(Source("pool"),))),
        Localizer(dataclasses.replace(network, weights_digest="1" * 64), plain),
        Localizer(dataclasses.replace(network, classes=("a", "b", "c")), plain),
        Localizer(dataclasses.replace(network, name="other"), plain),
    ]
    assert len({first.version, *(other.version for other in others)}) == 6
    assert first.model == Model(version=first.version, network="patches", classes=("red", "green", "blue"))


def test_parameters_survive_json() -> None:
    parameters = Parameters(sources=(Source("a", 0.5, 0.1, "absolute"),), threshold=0.3)
    assert Parameters.from_dict(parameters.to_dict()) == parameters
    assert Parameters.from_dict(parameters.to_dict()).digest == parameters.digest
    with pytest.raises(TypeError):
        Parameters.from_dict(parameters.to_dict() | {"odd": 1})


@pytest.mark.parametrize("reference", ["mean", "black", "blur"])
def test_references(network: Network, plain: Parameters, reference: str) -> None:
    localizer = Localizer(network, dataclasses.replace(plain, reference=reference))
    [[found]] = localizer.localize([picture((128, 128), ("red", (30, 30, 90, 90)))])
    assert found.label == "red"
