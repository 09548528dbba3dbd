"""Photos to boxes: the seed paper's Algorithm 1, once through the network for a whole batch.

1. classify the photo                        one forward pass, which also records
2. DeepLIFT and guided backpropagation       one backward pass, two rows a class
3. smooth                                    ┐
4. threshold and mask the borders            │ worker.heatmap, worker.drawing;
5. mix                                       │ what a box is worth: worker.scoring
6. box                                       ┘  where it leans: worker.leaning
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from worker import boxes
from worker.contract import Box, Detection, Model, Tuning, digest
from worker.drawing import draw
from worker.engines import Engine, make_attributor
from worker.errors import ContractError
from worker.heatmap import combine, prepare
from worker.images import Photo
from worker.images.ahead import tensors
from worker.leaning import lean
from worker.parameters import DEEPLIFT, GUIDED, Parameters
from worker.parts import Found
from worker.probes import count
from worker.regression import certainty, chance, regress, signs
from worker.scoring import EXTRA, score

if TYPE_CHECKING:
    from worker.attribution import Attribution
    from worker.networks import Network

Picture = Photo | Image.Image
Allowed = Sequence[int] | None
"""Class indices that compete; None where all do."""

BATCH = 8
"""Images that go through the network together, where nobody asks for another number."""


@dataclass(frozen=True)
class View:
    """What was seen in one photo: its boxes, and the maps of its best class, for people to look at."""

    detections: tuple[Detection, ...]
    deeplift: boxes.Floats
    """DeepLIFT's contributions at the input, summed over channels: (H, W) of the network's input."""
    guided: boxes.Floats
    """Guided backpropagation, summed over channels: (H, W) of the network's input."""
    heat: boxes.Floats
    """The final heat map, (grid, grid) in [0, 1]."""
    delta: float
    """Convergence delta: how far DeepLIFT's contributions are from the change of the logit, in logits."""


class Localizer:
    """A classifier that draws boxes. Loads nothing after it is made; safe to keep for the life of a process.

    `engine` is `boxlift` or `captum` (slower, same boxes); `precision` and `device` as the engine chooses
    where they are None. `like` is another localizer whose network has the same layers but perhaps the last: what is
    prepared of them is shared.
    """

    def __init__(
        self,
        network: Network,
        parameters: Parameters | None = None,
        *,
        engine: str = "boxlift",
        precision: torch.dtype | None = None,
        device: torch.device | str | None = None,
        batch: int = BATCH,
        like: Localizer | None = None,
    ) -> None:
        self.network = network
        self._batch = batch
        self._made: dict[str, Any] = {"engine": engine, "precision": precision, "device": device, "batch": batch}
        self.parameters = parameters or Parameters.of(network.name, network.layers)
        self._attribute: Engine = make_attributor(
            network,
            engine=engine,
            precision=precision,
            layers=self.parameters.layers,
            device=device,
            reference=reference(self.parameters, network),
            chunk=batch,
            like=like._attribute if like else None,
        )
        identity = [network.name, self.parameters.to_dict(), network.weights_digest, list(network.classes)]
        self.version = f"boxlift-{network.name}-{digest(identity)}"

    @property
    def model(self) -> Model:
        """What a worker announces."""
        network = self.network
        return Model(version=self.version, network=network.name, classes=network.classes, own=network.own)

    def tuned(self, tuning: Tuning) -> Localizer:
        """The same network with what one project's corrections taught. Cheap where this localizer's maps serve.

        Raises NetworkError for labels that were learned with another network, ContractError for parameters that
        this version cannot read.
        """
        from worker.heads import extended  # only where labels were learned

        parameters = self.parameters
        if tuning.parameters is not None:
            try:
                parameters = Parameters.from_dict(tuning.parameters)
                _try_out(parameters)
            except (TypeError, KeyError, ValueError) as error:
                raise ContractError(
                    f"the parameters of {tuning.version} cannot be read ({error}): tune the project again"
                ) from None
        network = self.network if tuning.head is None else extended(self.network, tuning.head)
        if network is self.network and _same_maps(parameters, self.parameters):
            mine = copy.copy(self)
            mine.parameters = parameters
        else:
            mine = Localizer(network, parameters, **self._made, like=self)
        mine.version = tuning.version
        return mine

    def localize(
        self,
        images: Sequence[Picture],
        *,
        classes: Allowed | Sequence[Allowed] = None,
        max_boxes: int = 1,
        min_score: float = 0.0,
    ) -> list[list[Detection]]:
        """Boxes of every image, best first, in pixels of the upright image at its own size.

        `classes` are the class indices that compete: for all images, or one entry (which may be None) for
        each; where none competes there is no box. Of each image at most `max_boxes` boxes come back, none
        with a score under `min_score`.
        """
        allowed = _per_image(classes, len(images), len(self.network.classes))
        compete = [number for number, one in enumerate(allowed) if one is None or len(one)]
        found: list[list[Detection]] = [[] for _ in images]
        views = self.view(
            [images[number] for number in compete],
            classes=[allowed[number] for number in compete],
            max_boxes=max_boxes,
            min_score=min_score,
        )
        for number, view in zip(compete, views, strict=True):
            found[number] = list(view.detections)
        return found

    def view(
        self,
        images: Sequence[Picture],
        *,
        classes: Allowed | Sequence[Allowed] = None,
        max_boxes: int = 1,
        min_score: float = 0.0,
    ) -> Iterator[View]:
        """As `localize`, with the maps; computed batch by batch as they are asked for.

        Raises ValueError where no class competes: there is nothing to map back.
        """
        allowed = _per_image(classes, len(images), len(self.network.classes))
        waits = torch.device(self._made["device"] or self.network.device).type == "cuda"
        ready = tensors(images, self.network.preprocessing, ahead=2 * self._batch if waits else 0)
        with closing(ready):
            for start in range(0, len(images), self._batch):
                part = slice(start, start + self._batch)
                if any(one is not None and not len(one) for one in allowed[part]):
                    raise ValueError("no class competes in an image: nothing can be mapped back")
                inputs = torch.stack(list(islice(ready, len(images[part]))))
                yield from self._view(images[part], inputs, allowed[part], max_boxes, min_score)

    def _view(
        self,
        images: Sequence[Picture],
        inputs: Tensor,
        allowed: Sequence[Allowed],
        max_boxes: int,
        min_score: float,
    ) -> Iterator[View]:
        several = max_boxes > 1
        attribution, heats, found = self.draw(inputs, allowed, several=several)
        rows, targets = attribution.rows.tolist(), attribution.targets.tolist()
        logits = attribution.logits.double().cpu().numpy()
        scored = score(found, logits, rows, targets, self.parameters)
        drawn: boxes.Floats = np.array([one.box for one in found]).reshape(-1, 4)
        if found and not several:
            drawn = lean(drawn, np.array([one.heat for one in found]), scored, self.parameters.lean)
        for number, image in enumerate(images):
            mine = [index for index, one in enumerate(found) if rows[one.row] == number]
            kept = boxes.select(
                drawn[mine],
                scored[mine],
                overlap=self.parameters.overlap,
                least=self.parameters.extra_score,
            )
            best = [
                Detection(
                    label=self.network.classes[targets[found[index].row]],
                    class_index=targets[found[index].row],
                    score=float(scored[index]),
                    box=pixels(boxes.as_box(drawn[index]), image.width, image.height),
                )
                for index in (mine[place] for place in kept)
                if scored[index] >= min_score
            ]
            first = rows.index(number)
            yield View(
                detections=tuple(best[:max_boxes]),
                deeplift=attribution.deeplift[first].float().sum(0).cpu().numpy(),
                guided=attribution.guided[first].float().sum(0).cpu().numpy(),
                heat=heats[first],
                delta=float(attribution.delta[first]),
            )

    def draw(
        self, inputs: Tensor, allowed: Sequence[Allowed], *, several: bool = False
    ) -> tuple[Attribution, boxes.Floats, list[Found]]:
        """What `attribute` says, each row's heat map (R, grid, grid), and all boxes, which have no score yet."""
        attribution = self.attribute(inputs, allowed, several=several)
        sources = prepare(named_maps(attribution), self.parameters)
        heats = combine(sources, self.parameters).cpu().numpy()
        found = draw([source.cpu().numpy() for source in sources], heats, self.parameters, several=several)
        return attribution, heats, found

    def attribute(self, inputs: Tensor, allowed: Sequence[Allowed], *, several: bool = False) -> Attribution:
        """The maps of images (N, 3, H, W) as the network takes them: of the best class that competes in each, and
        with `several` of those that come close to it, best first."""
        return self._attribute(inputs, self._choose(allowed, several=several))

    def _choose(self, allowed: Sequence[Allowed], *, several: bool) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The engine's callback: which classes of which images are mapped back."""

        def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
            chances = _probabilities(logits.detach().cpu(), allowed)
            best = chances.amax(1, keepdim=True)
            if several:
                most = min(self.parameters.most_classes, chances.shape[1])
                wanted = chances >= best * self.parameters.class_share
                wanted &= chances >= chances.topk(most, 1).values[:, -1:]
                wanted &= chances > 0
            else:
                wanted = torch.zeros_like(chances, dtype=torch.bool).scatter_(
                    1, chances.argmax(1, keepdim=True), True
                )
            rows, targets = wanted.nonzero(as_tuple=True)
            # Best class of each image first.
            order = torch.argsort(rows.double() - chances[rows, targets].double() * 0.5, stable=True)
            return rows[order].to(logits.device), targets[order].to(logits.device)

        return choose


def _try_out(parameters: Parameters) -> None:
    """Raise ValueError where the weights are not for as many probes and signs as there are."""
    probes = np.zeros((1, count(len(parameters.sources)), 4))
    drawn = np.zeros((1, 4)) if parameters.regression is None else regress(probes, parameters.regression)
    if parameters.calibration is not None:
        sure = certainty(np.zeros((1, 2)), [0], [0])
        chance(signs(sure, drawn, probes, np.zeros((1, parameters.grid, parameters.grid))), parameters.calibration)
    if parameters.extra is not None:
        chance(np.zeros((1, len(EXTRA))), parameters.extra)


def _same_maps(some: Parameters, others: Parameters) -> bool:
    """Whether one pass through the network serves both."""
    return (some.layers, some.reference) == (others.layers, others.reference)


def named_maps(attribution: Attribution) -> dict[str, Tensor]:
    """An attribution's maps by their names in `Parameters.sources`: (R, h, w) each, summed over channels."""
    pixel_maps = {
        DEEPLIFT: attribution.deeplift.float().sum(1),
        GUIDED: attribution.guided.float().sum(1),
    }
    return pixel_maps | dict(attribution.layers)


def reference(parameters: Parameters, network: Network) -> Tensor | str:
    """What DeepLIFT compares photos with, as the engine takes it: (3, H, W) or its name."""
    height, width = network.preprocessing.size
    match parameters.reference:
        case "black":
            return network.preprocessing.normalise(torch.zeros(3, height, width))
        case "mean":
            return torch.zeros(3, height, width)
        case other:
            return other


def pixels(box: Box, width: int, height: int) -> Box:
    """A box in fractions of the image → pixels of an image of that size."""
    x0, y0, x1, y1 = box
    return (x0 * width, y0 * height, x1 * width, y1 * height)


def _per_image(classes: Allowed | Sequence[Allowed], images: int, known: int) -> list[Allowed]:
    """One entry for each image. Raises ValueError for an index that is no class, or a wrong number of entries."""
    if classes is None or all(isinstance(one, int) for one in classes):
        allowed: list[Allowed] = [classes] * images  # type: ignore[list-item]
    else:
        allowed = list(classes)  # type: ignore[arg-type]
        if len(allowed) != images:
            raise ValueError(f"classes has {len(allowed)} entries for {images} images: it needs one for each")
    for one in allowed:
        if one is not None and not all(0 <= index < known for index in one):
            raise ValueError(f"classes must be indices under {known}")
    return allowed


def _probabilities(logits: Tensor, allowed: Sequence[Allowed]) -> Tensor:
    """Softmax over the classes that compete, 0 for the others: (N, C)."""
    masked = logits.double().clone()
    for row, classes in enumerate(allowed):
        if classes is not None:
            closed = torch.ones(masked.shape[1], dtype=torch.bool)
            closed[list(classes)] = False
            masked[row, closed] = -torch.inf
    return masked.softmax(1)
