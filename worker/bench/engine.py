"""Measurements of the engine: against captum, against plain forward passes, and against a detector.

What is compared runs in one process on the same weights and images, in turns, so that whatever else the machine
does meets all alike. Ratios are of medians over the turns; beside them stand ratios of processor time (the
least over the turns), which other programs disturb less.
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from worker.attribution import Attribution, Attributor, best_precision, describe_precision
from worker.bench.memory import mib_between, peak
from worker.errors import NetworkError
from worker.images import Photo, to_tensor
from worker.localizer import Localizer
from worker.networks import Network

BATCHES = (1, 8)
FORWARDS = 3
"""One pass forward and one back for two rows cost as much arithmetic as three passes forward."""


class Taken(NamedTuple):
    """Seconds of one run."""

    wall: float
    work: float
    """Processor time of all threads."""


def measure_engine(
    network: Network, photos: Sequence[Photo], *, repeat: int = 7, precision: torch.dtype | None = None
) -> dict[str, Any]:
    """Times and their ratios for batches of 1 and 8 photos (repeated where there are fewer).

    Returns flat ratios (`captum_ratio_b1_fp32`: captum's time over ours; `forward_ratio_…`: ours over three forward
    passes of the same network and precision), `images_per_s_…`, `cpu_time` (the same ratios of processor time),
    `seconds` (median, best and processor time of each), and `convergence_delta_…`: how far, at most, the
    contributions of a photo are from the change of its logit. `localize_ratio_b1` and `…_b8` are the whole way from
    the network's input to boxes over the engine alone with the same inner layers, at the default precision.
    `captum_peak_memory_mib_…` is what captum's first run takes above what is there before it.
    captum computes in float32 always; `captum_ratio_…_default` holds that against ours at its default precision.
    Where stock captum cannot run the network its ratios are None and `captum_error` says why.

    Args:
        repeat: turns that count, after one that does not.
        precision: the "default" one; None for what suits the device.
    """
    device = next(network.module.parameters()).device
    default = precision or best_precision(device)
    figures: dict[str, Any] = {}
    seconds: dict[str, Any] = {}
    work: dict[str, Any] = {}
    for batch in BATCHES:
        images = _images(network, photos, batch).to(device)
        runs = _contestants(network, images, default) | _whole_way(network, photos, images, default)
        before = peak(device, reset=True)
        problem = _trial(runs, "captum_fp32")
        after = peak(device)
        if problem:
            figures["captum_error"] = problem
        else:
            figures[f"captum_peak_memory_mib_b{batch}"] = mib_between(before, after)
        figures |= _completeness(batch, runs)
        times = interleaved(runs, repeat, device)
        if default == torch.float32:
            times |= {f"{name}_default": times[f"{name}_fp32"] for name in ("boxlift", "forward")}
        seconds |= {f"{name}_b{batch}": _summary(taken) for name, taken in times.items()}
        figures |= _ratios(batch, {name: statistics.median(t.wall for t in taken) for name, taken in times.items()})
        work |= _ratios(batch, {name: min(t.work for t in taken) for name, taken in times.items()})
    return figures | {
        "cpu_time": work,
        "seconds": seconds,
        "precision": describe_precision(device, precision),
        "compared": "captum: float32 as it stands (classify, DeepLift, GuidedBackprop); boxlift: the same maps; "
        f"forward: {FORWARDS} plain forward passes of boxlift's precision in their fastest layout",
        "turns": repeat,
    }


def about_machine(device: torch.device | None = None) -> dict[str, Any]:
    """What the figures depend on. `device` is where they were taken; None for a GPU where there is one."""
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    import captum
    import torchvision

    return {
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "captum": captum.__version__,
        },
    }


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeat: int, device: torch.device
) -> dict[str, list[Taken]]:
    """Times of each run, `repeat` times in turns, after one turn that does not count."""
    taken: dict[str, list[Taken]] = {name: [] for name in runs}
    gc.collect()
    gc.freeze()  # so that looking for what a run left behind does not mean looking at everything there is
    for turn in range(repeat + 1):
        for name, run in runs.items():
            gc.collect()  # captum leaves cycles behind, which somebody else would pay for
            _finish(device)
            start, begun = time.perf_counter(), time.process_time()
            run()
            _finish(device)
            if turn:
                taken[name].append(Taken(time.perf_counter() - start, time.process_time() - begun))
    gc.unfreeze()
    return taken


def _contestants(network: Network, images: Tensor, default: torch.dtype) -> dict[str, Callable[[], object]]:
    runs = {
        "captum_fp32": _captum(network, images),
        "boxlift_fp32": _boxlift(network, images, torch.float32),
        "forward_fp32": _forward(network, images, torch.float32),
    }
    if default != torch.float32:
        runs["boxlift_default"] = _boxlift(network, images, default)
        runs["forward_default"] = _forward(network, images, default)
    return runs


def _whole_way(
    network: Network, photos: Sequence[Photo], images: Tensor, precision: torch.dtype
) -> dict[str, Callable[[], object]]:
    """A localizer on inputs that are ready, and its own engine on the same."""
    localizer = Localizer(network, precision=precision)
    pictures = [photos[number % len(photos)] for number in range(len(images))]
    every = [None] * len(images)
    return {
        "localize": lambda: list(localizer._view(pictures, images, every, 1, 0.0)),
        "engine": lambda: localizer.attribute(images, every),
    }


def _completeness(batch: int, runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    found = {name.removeprefix("boxlift_"): run() for name, run in runs.items() if name.startswith("boxlift_")}
    return {
        f"convergence_delta_b{batch}_{kind}": float(maps.delta.abs().max())
        for kind, maps in found.items()
        if isinstance(maps, Attribution)
    }


def _captum(network: Network, images: Tensor) -> Callable[[], object]:
    from captum.attr import DeepLift, GuidedBackprop

    deeplift, guided = DeepLift(network.module), GuidedBackprop(network.module)
    reference = torch.zeros_like(images)

    def run() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum announces its hooks on every call
            with torch.no_grad():
                targets = network.module(images).argmax(1)
            asked = images.clone().requires_grad_()
            maps = deeplift.attribute(asked, reference, target=targets)
            return maps, guided.attribute(asked, target=targets)

    return run


def _boxlift(network: Network, images: Tensor, precision: torch.dtype) -> Callable[[], object]:
    attributor = Attributor(network.module, input_size=network.preprocessing.size, precision=precision)

    def best(logits: Tensor) -> tuple[Tensor, Tensor]:
        return torch.arange(len(logits), device=logits.device), logits.argmax(1)

    return lambda: attributor(images, best)


def _forward(network: Network, images: Tensor, precision: torch.dtype) -> Callable[[], object]:
    """Three forward passes in the layout that is faster here."""
    choices: list[Callable[[], object]] = []
    for layout in (torch.channels_last, torch.contiguous_format):
        module = _copy(network).to(precision).to(memory_format=layout)
        choices.append(_passes(module, images.to(precision).contiguous(memory_format=layout)))
    taken = interleaved({str(i): run for i, run in enumerate(choices)}, 2, images.device)
    return choices[min(range(len(choices)), key=lambda i: min(taken[str(i)]).wall)]


def _passes(module: nn.Module, images: Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.inference_mode():
            for _ in range(FORWARDS):
                module(images)

    return run


def _copy(network: Network) -> nn.Module:
    import copy

    return copy.deepcopy(network.module)


def _trial(runs: dict[str, Callable[[], object]], name: str) -> str:
    """Why the run fails, in which case it is taken out; else ""."""
    try:
        runs[name]()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        del runs[name]
        return str(error).splitlines()[0]
    return ""


def _ratios(batch: int, medians: Mapping[str, float]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for kind in ("fp32", "default"):
        ours = medians[f"boxlift_{kind}"]
        captum = medians.get("captum_fp32")
        figures[f"captum_ratio_b{batch}_{kind}"] = None if captum is None else captum / ours
        figures[f"forward_ratio_b{batch}_{kind}"] = ours / medians[f"forward_{kind}"]
        figures[f"images_per_s_b{batch}_{kind}"] = batch / ours
    figures[f"localize_ratio_b{batch}"] = medians["localize"] / medians["engine"]
    return figures


def _summary(taken: Sequence[Taken]) -> dict[str, float]:
    walls = [one.wall for one in taken]
    return {"median": statistics.median(walls), "best": min(walls), "cpu_time": min(one.work for one in taken)}


def _images(network: Network, photos: Sequence[Photo], batch: int) -> Tensor:
    if not photos:
        raise NetworkError("there are no photos to measure with: name a folder with --images")
    chosen = [photos[number % len(photos)] for number in range(batch)]
    return torch.stack([to_tensor(photo, network.preprocessing) for photo in chosen])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="ignore") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
