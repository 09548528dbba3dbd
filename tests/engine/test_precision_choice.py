"""Which number format is chosen, and how people override and see it."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded
from torch import nn

from backend.checks import check_weights
from backend.settings import Settings
from worker.attribution import Attributor, best_precision, describe_precision, parse_precision
from worker.errors import SettingsError


@pytest.mark.parametrize(("amx", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_processor_decides(monkeypatch: pytest.MonkeyPatch, amx: bool, expected: torch.dtype) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: True)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx, raising=False)
    assert best_precision("cpu") == expected
    module = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), dtype=torch.float32)
    assert Attributor(module, input_size=(4, 4)).precision == expected
    assert Attributor(module, input_size=(4, 4), precision=torch.float64).precision == torch.float64


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_gpu_decides(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Accelerator")
    assert best_precision("cuda:0") == expected
    name = str(expected).removeprefix("torch.")
    assert describe_precision("cuda:0") == (
        f"{name} (Accelerator, compute capability {'.'.join(map(str, capability))})"
    )


def test_names() -> None:
    assert parse_precision("auto") is None
    assert parse_precision("float32") == torch.float32
    assert parse_precision("bfloat16") == torch.bfloat16
    with pytest.raises(SettingsError, match="'half' does not exist: it must be one of auto, float32, bfloat16"):
        parse_precision("half")


def test_description_tells_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: True)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True, raising=False)
    assert describe_precision("cpu") == "bfloat16 (AMX found)"
    assert describe_precision("cpu", torch.float32) == "float32 (as set; bfloat16 (AMX found) would be chosen)"


@pytest.mark.parametrize(
    ("amx", "chosen", "words"),
    [
        (True, "auto", "cpu, bfloat16 (AMX found)"),
        (False, "auto", "cpu, float32 (no AMX: bfloat16 would be slower than float32)"),
        (True, "float32", "cpu, float32 (as set; bfloat16 (AMX found) would be chosen)"),
    ],
)
def test_doctor_tells_which_and_why(monkeypatch: pytest.MonkeyPatch, amx: bool, chosen: str, words: str) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: True)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx, raising=False)
    settings = Settings(network="efficientnet_lite0", device="cpu", precision=chosen)
    [line] = [check for check in check_weights(settings) if check.name == "device"]
    assert line.text == words
    assert line.state == "ok"
