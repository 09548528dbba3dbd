"""A folder that shows how good the boxes are: figures, plots, and the best, middle and worst photos with maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from worker.boxes import iou
from worker.evaluation.metrics import Outcome, per_class
from worker.evaluation.run import Run
from worker.images import Photo, decode
from worker.localizer import Localizer
from worker.panels import draw_frame, panels

GALLERY = 6
"""Photos of each kind in the gallery."""
COLOURS = (
    "#d1495b",
    "#8d99ae",
    "#457b9d",
    "#2a9d8f",
    "#e9a23b",
    "#6d597a",
    "#3d405b",
    "#81b29a",
    "#bc6c25",
    "#588157",
)


def write_report(
    folder: Path, dataset: str, runs: Sequence[Run], results: Mapping[str, Mapping[str, Any]], localizer: Localizer
) -> None:
    """Write `index.html`, its plots and its gallery; files of the same names are replaced.

    The first run is ours; `results` holds each run's `figures` and `intervals` by method.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = runs[0]
    names = [name for name in results[ours.method]["figures"] if not name.startswith(("boxes_", "objects_"))]
    template = (resources.files("worker.evaluation") / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(
        dataset=dataset,
        photos=len(ours.outcomes),
        version=localizer.version,
        names=[one.method for one in runs],
        rows=[{"name": name, "cells": [_cell(results[one.method], name) for one in runs]} for name in names],
        plots=_plots(folder, runs),
        gallery=_gallery(folder, ours.outcomes, localizer),
        classes=per_class(ours.outcomes),
        failed=ours.failed,
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _cell(result: Mapping[str, Any], name: str) -> dict[str, str]:
    value, spread = result["figures"].get(name), result["intervals"].get(name)
    return {
        "value": "–" if value is None else f"{value:.3f}",
        "spread": f"{spread[0]:.3f}–{spread[1]:.3f}" if spread and value is not None else "",
    }


def _plots(folder: Path, runs: Sequence[Run]) -> list[dict[str, str]]:
    with mpl.rc_context({"svg.hashsalt": "boxlift", "font.size": 9}):
        made = {
            "iou.svg": ("IoU of the best box", _histogram(runs[0].outcomes)),
            "curves.svg": ("right boxes, by what counts as right", _curves(runs)),
            "reliability.svg": ("what the score promises and keeps", _reliability(runs[0].outcomes)),
        }
        for name, (title, figure) in made.items():
            figure.axes[0].set_title(title)
            figure.tight_layout()
            figure.savefig(folder / name, metadata={"Date": None})
    return [{"file": name, "title": title} for name, (title, _) in made.items()]


def _histogram(outcomes: Sequence[Outcome]) -> Figure:
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.subplots()
    axes.hist([one.best_iou for one in outcomes], bins=np.linspace(0, 1, 21).tolist(), color=COLOURS[0])
    axes.axvline(0.5, color="#333", lw=1, ls=":")
    axes.set(xlabel="IoU", ylabel="photos", xlim=(0, 1))
    return figure


def _curves(runs: Sequence[Run]) -> Figure:
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.subplots()
    levels = np.linspace(0.1, 0.95, 35)
    for number, one in enumerate(runs):
        fit = np.array([outcome.best_iou for outcome in one.outcomes])
        name = one.method if number else "boxlift"
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            levels, [(fit >= level).mean() for level in levels], color=colour, lw=1 if number else 2.5, label=name
        )
    axes.set(xlabel="IoU from which a box is right", ylabel="share of photos", ylim=(0, 1))
    axes.legend(fontsize=6, frameon=False)
    return figure


def _reliability(outcomes: Sequence[Outcome]) -> Figure:
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.subplots()
    score = np.array([one.found[0].score if one.found else 0.0 for one in outcomes])
    right = np.array([one.best_iou >= 0.5 for one in outcomes])
    groups = [group for group in np.array_split(np.argsort(score), min(10, len(score))) if len(group)]
    axes.plot([0, 1], [0, 1], color="#999", lw=1, ls=":")
    axes.plot([score[g].mean() for g in groups], [right[g].mean() for g in groups], "o-", color=COLOURS[0])
    axes.set(xlabel="mean score of a tenth of the photos", ylabel="share of right boxes", xlim=(0, 1), ylim=(0, 1))
    return figure


def _gallery(folder: Path, outcomes: Sequence[Outcome], localizer: Localizer) -> list[dict[str, Any]]:
    order = sorted(range(len(outcomes)), key=lambda index: -outcomes[index].best_iou)
    middle = max(len(order) // 2 - GALLERY // 2, 0)
    parts = (("Best", order[:GALLERY]), ("Middle", order[middle : middle + GALLERY]), ("Worst", order[-GALLERY:]))
    return [
        {
            "title": title,
            "photos": [
                _show(folder, f"{title.lower()}-{place}.png", outcomes[index], localizer)
                for place, index in enumerate(indices)
            ],
        }
        for title, indices in parts
    ]


def _show(folder: Path, name: str, outcome: Outcome, localizer: Localizer) -> dict[str, str]:
    photo = decode(outcome.sample.path.read_bytes(), name=outcome.sample.path.name)
    [view] = localizer.view([photo])
    framed = photo.image.copy()
    for item in outcome.sample.objects:
        draw_frame(framed, item.box)
    panels(Photo(framed, photo.width, photo.height), view).save(folder / name)
    truth = ", ".join(dict.fromkeys(item.label for item in outcome.sample.objects))
    caption = f"{outcome.sample.path.name}: {truth}; IoU {outcome.best_iou:.2f}"
    if outcome.found:
        found = np.array([item.box for item in outcome.found])
        caption += f"; {len(found)} boxes, {int((iou(found, outcome.truths).max(1) >= 0.5).sum())} right"
    return {"file": name, "caption": caption}
