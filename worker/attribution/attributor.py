"""The attribution engine: exact DeepLIFT and guided backpropagation of a classifier, one pass forward, one back."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from worker.attribution.choosing import Choice, check_images, chosen
from worker.attribution.devices import all_digits, is_out_of_memory, upload
from worker.attribution.passes import (
    ForwardPass,
    ReferencePass,
    run_body_backward,
    run_forward,
    run_head_backward,
    run_plain,
    run_reference,
)
from worker.attribution.precision import best_precision
from worker.attribution.preparing import Plan, prepare
from worker.attribution.reference import blurred, constant_reference
from worker.attribution.result import Attribution, join
from worker.attribution.tracing import Program, trace
from worker.errors import NetworkError
from worker.rules import Method
from worker.rules.blocks import Workspace

log = logging.getLogger(__name__)


@dataclass
class _Shared:
    """What attributors with the same layers have in common, as they work one at a time."""

    workspace: Workspace = field(default_factory=Workspace)
    busy: threading.Lock = field(default_factory=threading.Lock)
    most: int | None = None
    """Images and rows that memory was found to be enough for."""


class Attributor:
    """Attributes the logits of one classifier to pixels and inner layers.

    The module is read, never changed. Its parameters are copied where precision, device or layout differ, so later
    changes of the module may not be seen: build a new one. Calls from several threads wait for each other.
    At log level DEBUG every call reports completeness: how far contributions are from the change of the logit.

    Args:
        module: maps (N, 3, H, W) to logits (N, C).
        input_size: (H, W) of the images.
        reference: the input that means "nothing there": "mean" (zeros: the mean colour of normalised images),
            "blur" (each image's own Gaussian-blurred copy), a number, or a tensor that broadcasts to (1, 3, H, W)
            or has one value for each channel.
        precision: torch.float32, torch.bfloat16 or torch.float64; None for the fastest fit for the device.
        layers: module paths whose DeepLIFT contributions are wanted, besides those of the pixels.
        device: where to compute; None for where the module is.
        gradient: also return plain gradients.
        chunk: most images, and most rows, in one pass; memory grows with it. More images than that cost a further
            forward pass, because the choice of classes sees all logits at once. Where a GPU runs out of memory it
            is halved for good, with a warning, and the work goes on.
        like: another attributor, of a network with the same layers: those with the same weights are not prepared
            and kept once more. The two then work one at a time, and what one finds too much the other does not try.

    Raises:
        UnsupportedLayerError: a layer has no rule; names it.
        NetworkError: an inner layer that is unknown, no image, or does not lead to the logits.
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
        like: Attributor | None = None,
    ) -> None:
        first = next(iter(module.parameters()), None)
        home = torch.device("cpu") if first is None else first.device
        self.device = home if device is None else torch.device(device)
        self.precision = best_precision(self.device) if precision is None else precision
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.methods: tuple[Method, ...] = ("deeplift", "guided")
        if gradient:
            self.methods += ("gradient",)
        self._chunk = chunk
        program = trace(module, self.input_size)
        self.layers = {name: _layer(program, name) for name in layers}
        self._keep = frozenset(self.layers.values())
        self._plan: Plan = prepare(program, self.precision, self.device, self._keep, like._plan if like else None)
        self._blur = isinstance(reference, str) and reference == "blur"
        self._baseline = (
            None if self._blur else constant_reference(reference, self.input_size, self._outside, self.device)
        )
        self._cached: ReferencePass | None = None
        self._shared: _Shared = like._shared if like else _Shared()

    @property
    def chunk(self) -> int:
        """Most images, and most rows, in one pass."""
        return self._chunk if self._shared.most is None else min(self._chunk, self._shared.most)

    def __call__(self, images: Tensor, choose: Choice) -> Attribution:
        """Maps for the chosen classes of the images.

        Args:
            images: (N, 3, H, W), normalised as the network wants them; on any device.
            choose: the class of each image (N,), or a function that is given all logits (N, C) in float32 and
                answers which image (R,) and which class (R,) each row is for.

        Raises:
            ValueError: images, rows or classes that do not fit, or no images.
            RuntimeError: a GPU lacks the memory for a single image (torch.OutOfMemoryError, or a library's own).
        """
        check_images(images, self.input_size)
        with self._shared.busy, torch.no_grad(), all_digits(self.device):
            while True:
                try:
                    found = self._run(images, choose)
                    break
                except RuntimeError as error:
                    if self.chunk == 1 or not is_out_of_memory(error):
                        raise
                finally:
                    self._shared.workspace.collect()
                self._retreat()  # not while the exception is handled: it keeps the failed try's tensors alive
        if log.isEnabledFor(logging.DEBUG) and len(found.delta):  # a GPU would be waited for
            log.debug("completeness: convergence delta at most %.2g logits", float(found.delta.abs().max()))
        return found

    def _retreat(self) -> None:
        """Use less memory from now on."""
        self._shared.most = max(1, self.chunk // 2)
        log.warning("out of memory on %s: going on with %d images at a time", self.device, self.chunk)
        self._shared.workspace.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(self, images: Tensor, choose: Choice) -> Attribution:
        if len(images) <= self.chunk:
            forward, reference = self._forward(images)
            rows, targets = chosen(choose, forward.logits.to(self._outside))
            return self._attribute(forward, reference, rows, targets)
        # The choice may compare images, so it needs the logits of all before any way back.
        logits = torch.cat([self._logits(part) for part in torch.split(images, self.chunk)])
        rows, targets = chosen(choose, logits)
        parts = []
        for start in range(0, len(images), self.chunk):
            stop = min(start + self.chunk, len(images))
            mine = ((rows >= start) & (rows < stop)).nonzero()[:, 0]
            forward, reference = self._forward(images[start:stop])
            parts.append((mine, self._attribute(forward, reference, rows[mine] - start, targets[mine])))
            self._shared.workspace.collect()
        return join(parts, logits, rows, targets)

    @property
    def _outside(self) -> torch.dtype:
        return torch.promote_types(self.precision, torch.float32)

    def _logits(self, images: Tensor) -> Tensor:
        return run_plain(self._plan, upload(images, self.device, self._outside).to(self.precision)).to(
            self._outside
        )

    def _forward(self, images: Tensor) -> tuple[ForwardPass, ReferencePass]:
        entered = upload(images, self.device, self._outside)
        if self._baseline is None:
            reference = self._refer(blurred(entered))
        else:
            if self._cached is None:
                self._cached = self._refer(self._baseline)
            reference = self._cached
        passed = run_forward(
            self._plan, entered.to(self.precision), reference, self._keep, self._shared.workspace.empty
        )
        return dataclasses.replace(passed, images=entered), reference

    def _refer(self, image: Tensor) -> ReferencePass:
        passed = run_reference(self._plan, image.to(self.precision), self._keep)
        return dataclasses.replace(passed, image=image)

    def _attribute(
        self, forward: ForwardPass, reference: ReferencePass, rows: Tensor, targets: Tensor
    ) -> Attribution:
        logits, logits0 = forward.logits.to(self._outside), reference.logits.to(self._outside)
        change = logits[rows, targets] - logits0[rows if len(logits0) > 1 else 0, targets]
        size = (len(rows), *forward.images.shape[1:])
        maps = [torch.empty(size, dtype=self._outside, device=self.device) for _ in self.methods]
        layers: dict[str, Tensor] = {}
        for name, number in self.layers.items():
            height, width = self._plan.program.shapes[number][2:]
            layers[name] = torch.empty((len(rows), height, width), dtype=self._outside, device=self.device)
        for places in torch.split(torch.arange(len(rows), device=self.device), self.chunk):
            self._backward(forward, reference, rows, targets, places, maps, layers)
        found = dict(zip(self.methods, maps, strict=True))
        return Attribution(
            logits=logits,
            rows=rows,
            targets=targets,
            deeplift=found["deeplift"],
            guided=found["guided"],
            layers=layers,
            delta=found["deeplift"].sum((1, 2, 3)) - change,
            gradient=found.get("gradient"),
        )

    def _backward(
        self,
        forward: ForwardPass,
        reference: ReferencePass,
        rows: Tensor,
        targets: Tensor,
        places: Tensor,
        maps: list[Tensor],
        layers: dict[str, Tensor],
    ) -> None:
        """Fill the rows at `places` of `maps` and `layers`."""
        if not len(places):
            return
        count, tile = len(forward.images), self._plan.tile
        straight = _unless_straight(rows[places], count)
        vectors = run_head_backward(self._plan, forward, straight, targets[places], self.methods)
        for index, seen in enumerate(forward.tiles):
            first = index * tile
            images = forward.images[first : first + tile]
            image0 = reference.image if len(reference.image) == 1 else reference.image[first : first + tile]
            kept0 = reference.tile(index).kept
            mine = ((rows[places] >= first) & (rows[places] < first + tile)).nonzero()[:, 0]
            for some in torch.split(mine, tile) if len(mine) else ():
                into, own = places[some], rows[places[some]] - first
                signals, inner = run_body_backward(
                    self._plan,
                    seen,
                    _unless_straight(own, len(images)),
                    [vector[some] for vector in vectors],
                    self.methods,
                    self._keep,
                )
                for method, signal, result in zip(self.methods, signals, maps, strict=True):
                    wide = signal.to(self._outside)
                    result[into] = wide * _difference(images, image0, own) if method == "deeplift" else wide
                for name, number in self.layers.items():
                    change = _difference(seen.kept[number].to(self._outside), kept0[number].to(self._outside), own)
                    layers[name][into] = (inner[number].to(self._outside) * change).sum(1)


def _unless_straight(rows: Tensor, count: int) -> Tensor | None:
    """None where row i is image i, which spares copies."""
    straight = len(rows) == count and torch.equal(rows, torch.arange(count, device=rows.device))
    return None if straight else rows


def _difference(images: Tensor, reference: Tensor, rows: Tensor) -> Tensor:
    return images[rows] - (reference[rows] if len(reference) > 1 else reference)


def _layer(program: Program, name: str) -> int:
    if name not in program.names:
        raise NetworkError(f"no layer {name!r} in the network: its layers are {', '.join(program.names)}")
    number = program.names[name]
    if len(program.shapes[number]) != 4:
        raise NetworkError(
            f"layer {name!r} has no height and width: its shape is {tuple(program.shapes[number][1:])}"
        )
    leading = {program.output}
    for step in reversed(program.steps):
        if step.output in leading:
            leading.update(step.inputs)
    if number not in leading:
        raise NetworkError(f"layer {name!r} does not lead to the logits: it has no contributions to them")
    return number
