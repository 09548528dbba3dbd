"""captum as an engine: the same maps as `worker.attribution.Attributor`, several times slower.

DeepLIFT and guided backpropagation are captum's own, run on copies of the network that avoid what
captum 0.9 gets wrong (see `worker.captum_copy`). Each map is computed alone: with more images captum takes the
first image's gradient for every one of them where activation and reference agree.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator, Sequence

import torch
from captum.attr import DeepLift, GuidedBackprop
from torch import Tensor, nn

from worker.attribution import Attribution, Choice
from worker.attribution.choosing import check_images, chosen
from worker.attribution.devices import all_digits
from worker.attribution.reference import blurred, constant_reference
from worker.captum_checks import check_images_apart
from worker.captum_copy import rewritten


class CaptumAttributor:
    """Maps by captum. The module is read, never changed. Calls from several threads wait for each other.

    Args:
        module: maps (N, 3, H, W) to logits (N, C).
        input_size: (H, W) of the images.
        reference: as for `Attributor`: "mean", "blur", a number, or a tensor that broadcasts to (1, 3, H, W).
        precision: of all computation; None for float32.
        layers: module paths whose DeepLIFT contributions are wanted; they come from the same pass.
        device: where to compute; None for where the module is.

    Raises:
        UnsupportedLayerError: captum lacks a rule for a layer, or it mixes images; names it.
        NetworkError: an inner layer that is unknown or does not lead to the logits.
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
    ) -> None:
        first = next(iter(module.parameters()), None)
        home = torch.device("cpu") if first is None else first.device
        self.device = home if device is None else torch.device(device)
        self.precision = precision or torch.float32
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self._constant = (
            None
            if isinstance(reference, str) and reference == "blur"
            else constant_reference(reference, self.input_size, self.precision, self.device)
        )
        self._module, self._taps = rewritten(
            module, "deeplift", device=self.device, dtype=self.precision, layers=layers
        )
        guided, _ = rewritten(module, "guided", device=self.device, dtype=self.precision)
        noise = torch.randn(2, 3, *self.input_size, generator=torch.Generator().manual_seed(0))
        check_images_apart(self._module, noise.to(self.device, self.precision))
        self._deeplift = DeepLift(self._module)
        self._guided = GuidedBackprop(guided)
        self._busy = threading.Lock()

    def __call__(self, images: Tensor, choose: Choice) -> Attribution:
        """Maps for the chosen classes of the images; arguments and result as for `Attributor`."""
        check_images(images, self.input_size)
        with self._busy, all_digits(self.device):
            return self._run(images, choose)

    def _run(self, images: Tensor, choose: Choice) -> Attribution:
        wide = torch.promote_types(self.precision, torch.float32)
        images = images.to(self.device, self.precision).contiguous()  # a network may ask for a view of them
        references = blurred(images) if self._constant is None else self._constant
        with torch.no_grad():
            logits, logits0 = self._module(images).to(wide), self._module(references.contiguous()).to(wide)
        rows, targets = chosen(choose, logits)
        places = rows if len(references) > 1 else torch.zeros_like(rows)
        deeplift = torch.empty((len(rows), *images.shape[1:]), dtype=wide, device=self.device)
        guided = torch.empty_like(deeplift)
        inner: dict[str, list[Tensor]] = {name: [] for name in self._taps}
        for number, (row, place, target) in enumerate(
            zip(rows.tolist(), places.tolist(), targets.tolist(), strict=True)
        ):
            deeplift[number], guided[number], seen = self._row(
                images[row : row + 1], references[place : place + 1].contiguous(), target
            )
            for name, contributions in zip(self._taps, seen, strict=True):
                inner[name].append(contributions)
        return Attribution(
            logits=logits,
            rows=rows,
            targets=targets,
            deeplift=deeplift,
            guided=guided,
            layers={name: torch.cat(parts).to(wide) if parts else deeplift[:, 0] for name, parts in inner.items()},
            delta=deeplift.sum((1, 2, 3)) - (logits[rows, targets] - logits0[places, targets]),
        )

    def _row(self, image: Tensor, reference: Tensor, target: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(3, H, W) twice, and (1, h, w) for each inner layer."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # captum announces its hooks on every call
            image = image.clone().requires_grad_()
            with self._watching() as seen:
                deeplift = self._deeplift.attribute(image, reference, target=target)
            guided = self._guided.attribute(image, target=target)
        inner = [_contributions(*seen[name]) for name in self._taps]
        return deeplift.detach()[0], guided.detach()[0], inner

    @contextlib.contextmanager
    def _watching(self) -> Iterator[dict[str, list[Tensor]]]:
        """Activations and then multipliers of the inner layers, each of the image and, behind it, the reference."""
        seen: dict[str, list[Tensor]] = {name: [] for name in self._taps}

        def watch(name: str, output: Tensor) -> None:
            seen[name].append(output.detach())
            output.register_hook(lambda multiplier: seen[name].append(multiplier))  # type: ignore[no-untyped-call]

        handles = [
            tap.register_forward_hook(lambda _module, _inputs, output, name=name: watch(name, output))
            for name, tap in self._taps.items()
        ]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _contributions(activation: Tensor, multiplier: Tensor) -> Tensor:
    """(2, C, h, w) twice, image and reference → (1, h, w)."""
    image, reference = activation.chunk(2)
    return (multiplier.chunk(2)[0] * (image - reference)).sum(1)
