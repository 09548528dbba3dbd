"""The three panels of the paper's figure, as we read it: one pipeline in three settings, on one photo.

The paper says that without the mask a few hot pixels at the edge blow the box up to the whole image, and that
thresholds, mask and blur decide how much a box over- or undershoots. So the panels are: no mask; the mask; the mask
and half the blur. The threshold is the same in all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from worker.boxes import Floats, as_box, iou
from worker.contract import Box
from worker.engines import make_attributor
from worker.evaluation.explainers import choice
from worker.evaluation.methods import SETTINGS
from worker.evaluation.metrics import Outcome
from worker.evaluation.run import Run
from worker.heatmap import heat
from worker.images import Photo, decode, to_tensor
from worker.localizer import named_maps
from worker.networks import Network
from worker.panels import colour, draw_frame
from worker.parameters import PAPER, Parameters
from worker.probes import union_boxes

FILE = "paper-figure.png"
CANDIDATES = 24
"""Photos that are looked at for the clearest case: those where the mask has gained most, at thresholds of
hindsight."""
TITLES = {
    "paper, no mask": "1. no mask",
    "paper": "2. a mask of 10 %",
    "paper, less blur": "3. the mask, half the blur",
}
_SIDE, _GAP, _TITLE = 260, 8, 22
_FOUND, _TRUE = (255, 64, 32), (60, 200, 90)


def write_paper_figure(
    folder: Path, runs: Sequence[Run], network: Network, precision: torch.dtype | None = None
) -> dict[str, str] | None:
    """Write the figure for the photo of `runs` where the settings differ most; None unless all three are among
    them.

    A row for each setting: the photo with the box (true ones in green), both maps smoothed and masked, their
    mixture.
    """
    by_name = {run.method: run.outcomes for run in runs}
    if not set(SETTINGS) <= set(by_name) or not by_name["paper"]:
        return None
    attribute = make_attributor(network, precision=precision)

    def maps_of(photo: Photo) -> dict[str, torch.Tensor]:
        return named_maps(attribute(to_tensor(photo, network.preprocessing)[None], choice(None)))

    best: tuple[float, Outcome, Photo, dict[str, torch.Tensor], dict[str, float]] | None = None
    for outcome in _candidates(by_name["paper, no mask"], by_name["paper"]):
        photo = decode(outcome.sample.path.read_bytes(), name=outcome.sample.path.name)
        maps = maps_of(photo)
        fits = {name: _fit(_box(maps, parameters), outcome) for name, parameters in SETTINGS.items()}
        gain = fits["paper"] - fits["paper, no mask"]
        if best is None or gain > best[0]:
            best = gain, outcome, photo, maps, fits
    if best is None:
        return None
    _, outcome, photo, maps, fits = best
    _sheet(photo, outcome, maps).save(folder / FILE)
    told = "; ".join(f"{TITLES[name]}: IoU {fit:.2f}" for name, fit in fits.items())
    return {"file": FILE, "caption": f"{outcome.sample.path.name}, threshold {PAPER.threshold:g}. {told}."}


def _candidates(bare: Sequence[Outcome], masked: Sequence[Outcome]) -> list[Outcome]:
    both = [pair for pair in zip(bare, masked, strict=True) if pair[0].sample.objects]
    order = sorted(both, key=lambda pair: pair[0].best_iou - pair[1].best_iou)
    return [one for one, _ in order[:CANDIDATES]]


def _box(maps: dict[str, torch.Tensor], parameters: Parameters) -> Box:
    [box] = union_boxes(heat(maps, parameters).float().cpu().numpy(), parameters.threshold)
    return as_box(box)


def _fit(box: Box, outcome: Outcome) -> float:
    return float(iou(np.array(box), outcome.truths).max(initial=0.0))


def _sheet(photo: Photo, outcome: Outcome, maps: dict[str, torch.Tensor]) -> Image.Image:
    size = (max(round(_SIDE * photo.width / photo.height), _SIDE // 3), _SIDE)
    columns = ("photo and box", "DeepLIFT", "guided backpropagation", "mixed")
    sheet = Image.new(
        "RGB",
        (_GAP + len(columns) * (size[0] + _GAP), len(SETTINGS) * (size[1] + _TITLE + _GAP) + _GAP),
        (255, 255, 255),
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, (name, parameters) in enumerate(SETTINGS.items()):
        box = _box(maps, parameters)
        framed = photo.image.resize(size)
        for item in outcome.sample.objects:
            draw_frame(framed, item.box, _TRUE)
        draw_frame(framed, box, _FOUND)
        mixed = colour(_heat(maps, parameters), size)
        draw_frame(mixed, box, _FOUND)
        alone = [colour(_heat(maps, replace(parameters, sources=(source,))), size) for source in parameters.sources]
        top = _GAP + row * (size[1] + _TITLE + _GAP)
        titles = (TITLES[name], *columns[1:])
        for place, (title, picture) in enumerate(zip(titles, (framed, *alone, mixed), strict=True)):
            left = _GAP + place * (size[0] + _GAP)
            draw.text((left, top), title, fill=(20, 20, 20), font=font)
            sheet.paste(picture, (left, top + _TITLE))
    return sheet


def _heat(maps: dict[str, torch.Tensor], parameters: Parameters) -> Floats:
    return np.asarray(heat(maps, parameters)[0].float().cpu().numpy())
