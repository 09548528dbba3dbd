"""The attribution engine: DeepLIFT and guided backpropagation of a classifier in one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from worker.attribution.passes import ForwardPass, ReferencePass, run_backward, run_forward, run_reference
from worker.attribution.precision import best_precision
from worker.attribution.preparing import prepare
from worker.attribution.tracing import trace
from worker.errors import NetworkError
from worker.rules import Method

Choice: TypeAlias = Tensor | Callable[[Tensor], tuple[Tensor, Tensor]]
"""Classes (N,), one for each image; or a function from logits (N, C) to rows (R,) and classes (R,)."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Maps of R rows, each one class of one image. Everything is float32 (float64 where computed so)."""

    logits: Tensor
    """(N, C), before softmax."""
    rows: Tensor
    """(R,) the image of each row."""
    targets: Tensor
    """(R,) the class of each row."""
    deeplift: Tensor
    """(R, 3, H, W) contributions to the target logit; those of a row sum to f(x) − f(x₀)."""
    guided: Tensor
    """(R, 3, H, W) guided gradients of the target logit."""
    layers: Mapping[str, Tensor]
    """(R, h, w) DeepLIFT contributions at each requested inner layer, summed over channels."""
    delta: Tensor
    """(R,) convergence delta: the sum of the row's contributions minus (f(x) − f(x₀))."""
    gradient: Tensor | None = field(default=None)
    """(R, 3, H, W) plain gradients, if asked for."""


class Attributor:
    """Attributes the logits of one classifier to pixels and inner layers.

    The module is read, never changed. The parameters are copied where precision, device or layout differ, so later
    changes of the module may not be seen: build a new one.

    Args:
        module: maps (N, 3, H, W) to logits (N, C).
        input_size: (H, W) of the images.
        reference: the input that means "nothing there": "mean" (zeros: the mean colour of normalised images),
            "blur" (each image's own Gaussian-blurred copy), a number, or a tensor that broadcasts to (1, 3, H, W).
        precision: torch.float32, torch.bfloat16 or torch.float64; None for the fastest fit for the device.
        layers: module paths whose DeepLIFT contributions are wanted, besides those of the pixels.
        device: where to compute; None for where the module is.
        gradient: also return plain gradients.
        chunk: most rows and images in one pass; memory grows with it.

    Raises:
        UnsupportedLayerError: a layer has no rule; names it.
        NetworkError: an unknown inner layer, or one that is not an image.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input_size: tuple[int, int],
        reference: Tensor | float | str = "mean",
        precision: torch.dtype | None = None,
        layers: Sequence[str] = (),
        device: torch.device | str | None = None,
        gradient: bool = False,
        chunk: int = 8,
    ) -> None:
        first = next(iter(module.parameters()), None)
        home = torch.device("cpu") if first is None else first.device
        self.device = home if device is None else torch.device(device)
        self.precision = best_precision(self.device) if precision is None else precision
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.methods: tuple[Method, ...] = (
            ("deeplift", "guided", "gradient") if gradient else ("deeplift", "guided")
        )
        self.chunk = chunk
        program = trace(module, self.input_size)
        self.layers = {name: _layer(program.names, program.shapes, name) for name in layers}
        self._keep = frozenset(self.layers.values())
        self._program = prepare(program, self.precision, self.device, self._keep)
        self._blur = reference == "blur" if isinstance(reference, str) else False
        self._baseline = None if self._blur else self._constant(reference)
        self._cached: ReferencePass | None = None

    def __call__(self, images: Tensor, choose: Choice) -> Attribution:
        """Maps for the chosen classes of the images.

        Args:
            images: (N, 3, H, W), normalised as the network wants them; on any device.
            choose: the class of each image (N,), or a function that is given all logits (N, C) in float32 and
                answers which image (R,) and which class (R,) each row is for.

        Raises:
            ValueError: images, rows or classes that do not fit.
        """
        self._check(images)
        with torch.no_grad():
            if len(images) <= self.chunk:
                forward, reference = self._forward(images)
                rows, targets = self._choose(choose, forward.logits.to(self._outside))
                return self._attribute(forward, reference, rows, targets)
            logits = torch.cat([self._logits(part) for part in images.split(self.chunk)])
            rows, targets = self._choose(choose, logits)
            parts = []
            for start in range(0, len(images), self.chunk):
                stop = min(start + self.chunk, len(images))
                mine = ((rows >= start) & (rows < stop)).nonzero()[:, 0]
                forward, reference = self._forward(images[start:stop])
                parts.append((mine, self._attribute(forward, reference, rows[mine] - start, targets[mine])))
            return _join(parts, logits, rows, targets)

    @property
    def _outside(self) -> torch.dtype:
        return torch.promote_types(self.precision, torch.float32)

    def _check(self, images: Tensor) -> None:
        if images.dim() != 4 or images.shape[1] != 3 or tuple(images.shape[2:]) != self.input_size:
            expected = f"(N, 3, {self.input_size[0]}, {self.input_size[1]})"
            raise ValueError(f"images have shape {tuple(images.shape)}, not {expected}")

    def _constant(self, reference: Tensor | float | str) -> Tensor:
        if isinstance(reference, str):
            if reference != "mean":
                raise ValueError(f"reference {reference!r} is not known: use 'mean', 'blur', a number or a tensor")
            reference = 0.0
        value = torch.as_tensor(reference, dtype=self._outside, device=self.device)
        if value.dim() == 1:
            value = value[:, None, None]
        return value.broadcast_to(1, 3, *self.input_size).contiguous(memory_format=torch.channels_last)

    def _enter(self, images: Tensor) -> Tensor:
        return images.to(self.device, self._outside, non_blocking=True).contiguous(
            memory_format=torch.channels_last
        )

    def _logits(self, images: Tensor) -> Tensor:
        entered = self._enter(images).to(self.precision)
        return run_forward(self._program, entered, None, ()).logits.to(self._outside)

    def _forward(self, images: Tensor) -> tuple[ForwardPass, ReferencePass]:
        entered = self._enter(images)
        if self._baseline is None:
            reference = self._refer(_blurred(entered))
        else:
            if self._cached is None:
                self._cached = self._refer(self._baseline)
            reference = self._cached
        passed = run_forward(self._program, entered.to(self.precision), reference, self._keep)
        return ForwardPass(entered, passed.logits, passed.records, passed.kept), reference

    def _refer(self, image: Tensor) -> ReferencePass:
        passed = run_reference(self._program, image.to(self.precision), self._keep)
        return ReferencePass(image, passed.logits, passed.remembered, passed.kept)

    def _choose(self, choose: Choice, logits: Tensor) -> tuple[Tensor, Tensor]:
        count, classes = logits.shape
        if isinstance(choose, Tensor):
            rows, targets = torch.arange(count, device=self.device), choose
        else:
            rows, targets = choose(logits)
        rows, targets = rows.to(self.device, torch.int64), targets.to(self.device, torch.int64)
        if rows.shape != targets.shape or rows.dim() != 1:
            raise ValueError(
                f"rows {tuple(rows.shape)} and classes {tuple(targets.shape)} must be one-dimensional and equal"
            )
        if len(rows) and not (0 <= int(rows.min()) and int(rows.max()) < count):
            raise ValueError(f"rows name images outside 0…{count - 1}")
        if len(rows) and not (0 <= int(targets.min()) and int(targets.max()) < classes):
            raise ValueError(f"classes must lie in 0…{classes - 1}")
        return rows, targets

    def _attribute(
        self, forward: ForwardPass, reference: ReferencePass, rows: Tensor, targets: Tensor
    ) -> Attribution:
        parts = []
        places = torch.arange(len(rows), device=self.device)
        for mine in places.split(self.chunk):
            parts.append((mine, self._backward(forward, reference, rows[mine], targets[mine])))
        logits = forward.logits.to(self._outside)
        if len(parts) == 1:
            return parts[0][1]
        return _join(parts, logits, rows, targets)

    def _backward(
        self, forward: ForwardPass, reference: ReferencePass, rows: Tensor, targets: Tensor
    ) -> Attribution:
        count = len(rows)
        straight = count == len(forward.images) and torch.equal(rows, torch.arange(count, device=rows.device))
        signal, inner = run_backward(
            self._program, forward, None if straight else rows, targets, self.methods, self._keep
        )
        maps = dict(zip(self.methods, signal.to(self._outside).split(count), strict=True))
        deeplift = maps["deeplift"] * _difference(forward.images, reference.image, rows)
        logits, logits0 = forward.logits.to(self._outside), reference.logits.to(self._outside)
        change = logits[rows, targets] - logits0[rows if len(logits0) > 1 else 0, targets]
        layers = {}
        for name, number in self.layers.items():
            step = _difference(
                forward.kept[number].to(self._outside), reference.kept[number].to(self._outside), rows
            )
            layers[name] = (inner[number].to(self._outside) * step).sum(1)
        return Attribution(
            logits=logits,
            rows=rows,
            targets=targets,
            deeplift=deeplift,
            guided=maps["guided"],
            layers=layers,
            delta=deeplift.sum((1, 2, 3)) - change,
            gradient=maps.get("gradient"),
        )


def _difference(images: Tensor, reference: Tensor, rows: Tensor) -> Tensor:
    return images[rows] - (reference[rows] if len(reference) > 1 else reference)


def _layer(names: Mapping[str, int], shapes: Mapping[int, torch.Size], name: str) -> int:
    if name not in names:
        raise NetworkError(f"no layer {name!r} in the network: its layers are {', '.join(names)}")
    if len(shapes[names[name]]) != 4:
        raise NetworkError(f"layer {name!r} has no height and width: its shape is {tuple(shapes[names[name]][1:])}")
    return names[name]


def _blurred(images: Tensor) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur

    side = max(images.shape[-2:])
    blurred: Tensor = gaussian_blur(images, kernel_size=[side // 8 * 2 + 1] * 2, sigma=[side / 16] * 2)
    return blurred


def _join(
    parts: Sequence[tuple[Tensor, Attribution]], logits: Tensor, rows: Tensor, targets: Tensor
) -> Attribution:
    """Parts of the rows, each with the places that its rows take, as one."""
    if not parts:
        raise ValueError("no rows were chosen")
    order = torch.cat([places for places, _ in parts]).argsort()
    found = [part for _, part in parts]

    def together(get: Callable[[Attribution], Tensor]) -> Tensor:
        return torch.cat([get(part) for part in found])[order]

    return Attribution(
        logits=logits,
        rows=rows,
        targets=targets,
        deeplift=together(lambda part: part.deeplift),
        guided=together(lambda part: part.guided),
        layers={name: together(lambda part, name=name: part.layers[name]) for name in found[0].layers},  # type: ignore[misc]
        delta=together(lambda part: part.delta),
        gradient=None if found[0].gradient is None else together(lambda part: part.gradient),  # type: ignore[arg-type,return-value]
    )
