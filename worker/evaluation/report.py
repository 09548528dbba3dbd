"""A folder that shows how good the boxes are: figures, plots, and the best, middle and worst photos with maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from worker.boxes import iou
from worker.contract import Detection
from worker.evaluation.groups import Group
from worker.evaluation.metrics import Outcome
from worker.evaluation.paper_figure import write_paper_figure
from worker.evaluation.plots import write_plots
from worker.evaluation.run import Run
from worker.images import Photo, decode
from worker.localizer import Localizer, pixels
from worker.panels import draw_frame, panels

GALLERY = 6
"""Photos of each kind in the gallery, or as many as can be shown without showing one twice."""


def write_report(
    folder: Path,
    dataset: str,
    runs: Sequence[Run],
    results: Mapping[str, Mapping[str, Any]],
    localizer: Localizer,
    *,
    classes: Sequence[Group],
    strata: Sequence[Group],
    left_out: Mapping[str, str],
    precision: torch.dtype | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write `index.html`, its plots and its gallery; files of the same names are replaced.

    The first run is ours; `results` holds each run's `figures` and `intervals` by method. `progress` is told how
    many of `3 * GALLERY` pictures are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours, others = runs[0], runs[1:]
    names = list(results[ours.method]["figures"])
    template = (resources.files("worker.evaluation") / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(
        dataset=dataset,
        photos=len(ours.outcomes),
        empty=sum(not one.sample.objects for one in ours.outcomes),
        version=localizer.version,
        names=[one.heading for one in runs],
        rows=[{"name": name, "cells": [_cell(results[one.method], name) for one in runs]} for name in names],
        gains=[_gains(one.heading, results[one.method]) for one in others],
        notes=[(one.method, one.note) for one in others],
        left_out=left_out,
        plots=write_plots(folder, runs),
        figure=write_paper_figure(folder, runs, localizer.network, precision),
        gallery=_gallery(folder, ours.outcomes, localizer, progress),
        classes=classes,
        strata=strata,
        labelled=any(row.f1_labelled is not None for row in classes),
        failed=ours.failed,
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _cell(result: Mapping[str, Any], name: str) -> dict[str, str]:
    value, spread = result["figures"].get(name), result["intervals"].get(name)
    return {
        "value": "–" if value is None else f"{value:.0f}" if name in ("boxes", "objects") else f"{value:.3f}",
        "spread": f"{spread[0]:.3f}–{spread[1]:.3f}" if spread and value is not None else "",
    }


def _gains(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    gains = [(result["ours_minus"].get(key), "+.3f") for key in ("corloc", "mean_iou")]
    return {"name": name, "cells": [_gain(gain, form) for gain, form in (*gains, (result["f1_ratio"], ".2f"))]}


def _gain(gain: Mapping[str, Any] | None, form: str) -> dict[str, str]:
    if gain is None:
        return {"value": "–", "spread": ""}
    low, high = gain["interval"]
    return {"value": f"{gain['value']:{form}}", "spread": f"{low:{form}} to {high:{form}}"}


def _gallery(
    folder: Path, outcomes: Sequence[Outcome], localizer: Localizer, progress: Callable[[int], None]
) -> list[dict[str, Any]]:
    done = 0
    shown = []
    for title, chosen in choose(outcomes).items():
        items = []
        for place, outcome in enumerate(chosen):
            items.append(_show(folder, f"{title.lower()}-{place}.png", outcome, localizer))
            done += 1
            progress(done)
        shown.append({"title": title, "photos": items})
    return shown


def choose(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The photos of the gallery, by IoU of the first box; none twice, none without an object."""
    order = sorted((one for one in outcomes if one.sample.objects), key=lambda one: -one.best_iou)
    size = min(GALLERY, max(len(order) // 3, 1))
    best, rest = order[:size], order[size:]
    worst = rest[-size:]
    middle = rest[: len(rest) - len(worst)]
    start = max((len(middle) - size) // 2, 0)
    return {"Best": best, "Middle": middle[start : start + size], "Worst": worst}


def _show(folder: Path, name: str, outcome: Outcome, localizer: Localizer) -> dict[str, str]:
    photo = decode(outcome.sample.path.read_bytes(), name=outcome.sample.path.name)
    [view] = localizer.view([photo])
    # The boxes that were counted, which may be more than the one that a look at the photo gives, or none.
    drawn = tuple(
        Detection(item.label, item.class_index or 0, item.score or 0.0, pixels(item.box, photo.width, photo.height))
        for item in outcome.found
    )
    framed = photo.image.copy()
    for item in outcome.sample.objects:
        draw_frame(framed, item.box)
    panels(Photo(framed, photo.width, photo.height), replace(view, detections=drawn)).save(folder / name)
    truth = ", ".join(dict.fromkeys(item.label for item in outcome.sample.objects))
    return {"file": name, "caption": f"{outcome.sample.path.name}: {truth}; {_told(outcome)}"}


def _told(outcome: Outcome) -> str:
    if not outcome.found:
        return "no box"
    if len(outcome.found) == 1:
        return f"IoU {outcome.best_iou:.2f}"
    found = np.array([item.box for item in outcome.found])
    right = int((iou(found, outcome.truths).max(1) >= 0.5).sum())
    return f"IoU of the first box {outcome.best_iou:.2f}; {len(found)} boxes, {right} on an object"
