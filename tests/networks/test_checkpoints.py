"""State dicts of all kinds of files go in, or are refused with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worker.errors import NetworkError, WeightsError
from worker.networks import NETWORKS, load_network

State = dict[str, Tensor]
NAME = "squeezenet1_1"  # the smallest one: 2.9 MB with five classes
CLASSES = ("ant", "bee", "cat", "dog", "Äpfel")


@pytest.fixture(scope="module")
def module(random_network: Callable[..., nn.Module]) -> nn.Module:
    return random_network(NAME, len(CLASSES), torch.float32)


@pytest.fixture
def state(module: nn.Module) -> State:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(CLASSES) + "\n\n", encoding="utf-8")
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], Path]:
    def save(value: object) -> Path:
        path = tmp_path / "mine.pth"
        torch.save(value, path)
        return path

    return save


def _same(weights: Path, classes: Path, module: nn.Module) -> None:
    network = load_network(NAME, weights=weights, classes=classes)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network.module(images), module(images))
    assert network.classes == CLASSES


def test_safetensors_and_pth_give_the_network_that_was_saved(
    state: State, classes: Path, module: nn.Module, saved: Callable[[object], Path], tmp_path: Path
) -> None:
    _same(saved(state), classes, module)
    save_file(state, tmp_path / "mine.safetensors")
    _same(tmp_path / "mine.safetensors", classes, module)


def test_the_kind_of_file_is_told_by_content_not_by_name(
    state: State, classes: Path, module: nn.Module, tmp_path: Path
) -> None:
    save_file(state, tmp_path / "mine.pth")
    _same(tmp_path / "mine.pth", classes, module)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"model._orig_mod.{key}": value for key, value in state.items()}},
        lambda state: {"model": {"state_dict": state}},
    ],
)
def test_what_training_scripts_wrap_around_a_state_dict_is_taken_off(
    wrap: Callable[[State], object],
    state: State,
    classes: Path,
    module: nn.Module,
    saved: Callable[[object], Path],
) -> None:
    _same(saved(wrap(state)), classes, module)


def test_half_precision_is_widened(state: State, classes: Path, saved: Callable[[object], Path]) -> None:
    network = load_network(NAME, weights=saved({k: v.half() for k, v in state.items()}), classes=classes)
    assert {p.dtype for p in network.module.parameters()} == {torch.float32}


def test_a_loaded_network_is_ready_for_inference_and_wholly_in_memory(
    state: State, classes: Path, saved: Callable[[object], Path]
) -> None:
    network = load_network(NAME, weights=saved(state), classes=classes)
    assert not any(part.training for part in network.module.modules())
    assert not any(p.requires_grad for p in network.module.parameters())
    assert {t.device.type for t in network.module.state_dict().values()} == {"cpu"} == {network.device.type}
    assert network.layers == NETWORKS[NAME].layers


def test_batch_norm_counters_that_old_files_lack_do_not_matter(
    random_network: Callable[..., nn.Module], classes: Path, saved: Callable[[object], Path]
) -> None:
    state = random_network("resnet18", len(CLASSES), torch.float32).state_dict()
    short = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(short) < len(state)
    load_network("resnet18", weights=saved(short), classes=classes)


def test_the_digest_names_the_content_wherever_it_lies(
    state: State, classes: Path, saved: Callable[[object], Path], tmp_path: Path
) -> None:
    first = saved(state)
    copy = tmp_path / "elsewhere.bin"
    copy.write_bytes(first.read_bytes())
    digests = {load_network(NAME, weights=path, classes=classes).weights_digest for path in (first, copy)}
    assert len(digests) == 1
    state["classifier.1.bias"] = state["classifier.1.bias"] + 1
    digests.add(load_network(NAME, weights=saved(state), classes=classes).weights_digest)
    assert len(digests) == 2


def _refused(match: str, weights: Path, classes: Path | None = None, name: str = NAME) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        load_network(name, weights=weights, classes=classes)
    assert "Traceback" not in str(caught.value)


def test_weights_of_another_network_are_named(state: State, classes: Path, saved: Callable[[object], Path]) -> None:
    path = saved(state)
    _refused(
        r"resnet18: .*mine\.pth belongs to another network.*missing \(conv1\.weight", path, classes, "resnet18"
    )


def test_a_wrong_shape_is_named(state: State, classes: Path, saved: Callable[[object], Path]) -> None:
    state["features.0.weight"] = state["features.0.weight"][:, :, :2]
    path = saved(state)
    _refused(r"features\.0\.weight is \(64, 3, 2, 3\) instead of \(64, 3, 3, 3\)", path, classes)


def test_missing_and_unknown_tensors_are_counted(
    state: State, classes: Path, saved: Callable[[object], Path]
) -> None:
    state["surplus"] = state.pop("features.0.bias")
    path = saved(state)
    _refused(r"1 missing \(features\.0\.bias\) and 1 unknown \(surplus\)", path, classes)


def test_another_number_of_classes_is_told_apart_from_another_network(
    state: State, classes: Path, saved: Callable[[object], Path], tmp_path: Path
) -> None:
    path = saved(state)
    _refused(r"knows 5 classes, but there are 1000 class names.*--classes FILE", path)
    (tmp_path / "four.txt").write_text("a\nb\nc\nd")
    _refused(r"knows 5 classes, but there are 4 class names", path, tmp_path / "four.txt")


def test_undefined_numbers_are_damage(state: State, classes: Path, saved: Callable[[object], Path]) -> None:
    state["features.0.bias"][3] = torch.nan
    _refused(r"infinite or undefined numbers \(features\.0\.bias\)", saved(state), classes)


class _Bomb:
    """Pickled code: unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_inside_a_file_is_not_run(
    state: State, classes: Path, saved: Callable[[object], Path], tmp_path: Path
) -> None:
    path = saved({"state_dict": state, "extra": _Bomb(tmp_path / "boom")})
    _refused("Python objects that could run code", path, classes)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(
    kind: str, share: float, state: State, classes: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"mine.{kind}"
    torch.save(state, path) if kind == "pth" else save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    _refused(rf"mine\.{kind} (is|holds)", path, classes)


def test_what_is_not_a_checkpoint_is_refused(
    classes: Path, saved: Callable[[object], Path], tmp_path: Path
) -> None:
    _refused("missing.pth cannot be read", tmp_path / "missing.pth", classes)
    _refused("cannot be read", tmp_path, classes)
    _refused("holds no state dict", saved([1, 2, 3]), classes)
    _refused("holds no state dict", saved({}), classes)
    _refused("holds no state dict", saved({"epoch": 3}), classes)
    (tmp_path / "photo.pth").write_bytes(b"\xff\xd8\xff\xe0 not weights at all, whatever the name says")
    _refused("photo.pth is", tmp_path / "photo.pth", classes)


def test_class_names_are_checked(state: State, saved: Callable[[object], Path], tmp_path: Path) -> None:
    path = saved(state)
    names = tmp_path / "names.txt"
    for content, reason in (
        (b"a\n\nb\nc\nd\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
        (b"a\nb\nc\nd\na\n", "names a class twice: a"),
        (b"\xff\xfe\x00", "cannot be read"),
    ):
        names.write_bytes(content)
        with pytest.raises(NetworkError, match=reason):
            load_network(NAME, weights=path, classes=names)
    with pytest.raises(NetworkError, match="cannot be read"):
        load_network(NAME, weights=path, classes=tmp_path / "none.txt")


def test_class_names_may_carry_a_byte_order_mark_and_windows_line_ends(
    state: State, saved: Callable[[object], Path], tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(CLASSES).encode())
    assert load_network(NAME, weights=saved(state), classes=names).classes == CLASSES


def test_a_device_that_is_not_there_is_an_error(
    state: State, classes: Path, saved: Callable[[object], Path]
) -> None:
    for device in ("cuda:99", "toaster"):
        with pytest.raises(NetworkError, match=f"device '{device}' cannot be used"):
            load_network(NAME, weights=saved(state), classes=classes, device=device)
    assert load_network(NAME, weights=saved(state), classes=classes, device="auto").device.type in ("cpu", "cuda")
