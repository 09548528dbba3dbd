"""`boxlift bench engine` runs, and what it prints can be computed with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from worker.bench.engine import measure_engine
from worker.images import Photo
from worker.networks import NETWORKS, Network, Preprocessing


def _network(module: nn.Module, layer: str = "1") -> Network:
    entry = dataclasses.replace(NETWORKS["vgg11"], preprocessing=Preprocessing(size=(16, 16)), layers=(layer,))
    module = module.eval().requires_grad_(False)
    return Network("tiny", module, entry.preprocessing, ("a", "b"), "0" * 64, entry)


def _photos(count: int) -> list[Photo]:
    return [Photo.of(Image.effect_noise((20, 24), 60)) for _ in range(count)]


class _Shared(nn.Module):
    """One ReLU called twice, which captum refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu, self.head = nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))  # type: ignore[no-any-return]


def test_compares_everything_in_both_batches_and_precisions() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 2)
    )
    figures = measure_engine(_network(module), _photos(2), repeat=2)
    for batch in (1, 8):
        for kind in ("fp32", "default"):
            ours = figures["seconds"][f"boxlift_{kind}_b{batch}"]["median"]
            captum = figures["seconds"][f"captum_fp32_b{batch}"]["median"]
            forward = figures["seconds"][f"forward_{kind}_b{batch}"]["median"]
            assert figures[f"captum_ratio_b{batch}_{kind}"] == pytest.approx(captum / ours)
            assert figures[f"forward_ratio_b{batch}_{kind}"] == pytest.approx(ours / forward)
            assert figures[f"images_per_s_b{batch}_{kind}"] == pytest.approx(batch / ours)
            assert figures["cpu_time"][f"captum_ratio_b{batch}_{kind}"] > 0
        whole, engine = (figures["seconds"][f"{name}_b{batch}"]["median"] for name in ("localize", "engine"))
        assert figures[f"localize_ratio_b{batch}"] == pytest.approx(whole / engine)
        assert figures[f"captum_peak_memory_mib_b{batch}"] >= 0
        assert 0 <= figures[f"convergence_delta_b{batch}_fp32"] < 1e-4
    assert "captum_error" not in figures


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_measures_the_precision_that_is_asked_for(precision: torch.dtype) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2))
    figures = measure_engine(_network(module), _photos(1), repeat=1, precision=precision)
    assert figures["precision"].startswith(str(precision).removeprefix("torch."))
    same = figures["seconds"]["boxlift_default_b1"] == figures["seconds"]["boxlift_fp32_b1"]
    assert same == (precision == torch.float32), "float32 is not measured twice, bfloat16 is measured"


def test_says_why_captum_cannot() -> None:
    figures = measure_engine(_network(_Shared(), "first"), _photos(1), repeat=1)
    assert figures["captum_ratio_b1_fp32"] is figures["captum_ratio_b8_default"] is None
    assert figures["captum_error"]
    assert "captum_peak_memory_mib_b1" not in figures
    assert figures["forward_ratio_b1_fp32"] > 0


@pytest.mark.slow
def test_command_prints_one_json_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.cli import bench_engine
    from backend.cli.bench import command

    weights = tmp_path / "squeezenet.pth"
    torch.manual_seed(0)
    torch.save(NETWORKS["squeezenet1_1"].build(1000).state_dict(), weights)
    Image.effect_noise((80, 60), 60).save(tmp_path / "photo.png")
    # Small inputs, of which eight at once take captum seconds. The process that measures memory has large ones.
    small = dataclasses.replace(NETWORKS["squeezenet1_1"], preprocessing=Preprocessing(size=(96, 96)))
    monkeypatch.setitem(NETWORKS._made, "squeezenet1_1", small)  # type: ignore[attr-defined]
    given: dict[str, Any] = {"network": "squeezenet1_1", "weights": str(weights), "images": str(tmp_path)}
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    assert bench_engine.command.name == "engine"
    monkeypatch.setenv("BOXLIFT_PRECISION", "float32")
    result = CliRunner().invoke(command, ["engine", *arguments, "--repeat", "1", "--no-detectors", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["network"] == "squeezenet1_1"
    assert figures["peak_memory_mib"] > 0
    assert figures["precision"].startswith("float32 (as set")
    assert {"captum_ratio_b1_fp32", "captum_ratio_b8_default", "forward_ratio_b1_fp32"} <= figures.keys()
    assert {"seconds", "precision", "threads", "versions", "captum_peak_memory_mib_b8"} <= figures.keys()
    assert {"localize_ratio_b1", "localize_ratio_b8"} <= figures.keys()
