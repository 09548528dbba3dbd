"""The report's plots: how well boxes fit, how many are right by any standard, and what scores are worth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worker.evaluation.metrics import Flags, Floats, Outcome, first_score, hits
from worker.evaluation.run import Run

OURS = "#d1495b"
COLOURS = ("#457b9d", "#2a9d8f", "#e9a23b", "#6d597a", "#222222", "#8d99ae", "#bc6c25")
STYLES = ("-", "--", ":")
"""Every method has a colour and a style that no other has: there are more methods than colours that differ."""


def write_plots(folder: Path, runs: Sequence[Run]) -> list[dict[str, str]]:
    """Write the plots as SVG, the same for the same runs; `file` and `title` of each. The first run is ours."""
    with mpl.rc_context({"svg.hashsalt": "boxlift", "font.size": 9}):
        made = {
            "iou.svg": ("IoU of the first box", _histogram(runs[0].outcomes)),
            "curves.svg": ("right first boxes, by what counts as right", _curves(runs)),
            "reliability.svg": ("what the score promises and keeps", _reliability(runs[0].outcomes)),
        }
        for name, (title, figure) in made.items():
            figure.axes[0].set_title(title)
            figure.tight_layout()
            figure.savefig(folder / name, metadata={"Date": None})
    return [{"file": name, "title": title} for name, (title, _) in made.items()]


def _histogram(outcomes: Sequence[Outcome]) -> Figure:
    figure, axes = _figure()
    axes.hist(_fits(outcomes), bins=np.linspace(0, 1, 21).tolist(), color=OURS)
    axes.axvline(0.5, color="#333", lw=1, ls=":")
    axes.set(xlabel="IoU", ylabel="photos", xlim=(0, 1))
    return figure


def _curves(runs: Sequence[Run]) -> Figure:
    figure, axes = _figure()
    levels = np.linspace(0.1, 0.95, 35)
    looks = [(OURS, "-", 2.5), *((colour, style, 1.0) for style, colour in itertools.product(STYLES, COLOURS))]
    for (colour, style, width), (number, one) in zip(itertools.cycle(looks), enumerate(runs), strict=False):
        fit = np.array(_fits(one.outcomes))
        shares = [float((fit >= level).mean()) for level in levels]
        name = one.method if number else "boxlift"
        axes.plot(levels, shares, color=colour, ls=style, lw=width, label=name)
    axes.set(xlabel="IoU from which a box is right", ylabel="share of photos", ylim=(0, 1))
    axes.legend(fontsize=6, frameon=False)
    return figure


def _reliability(outcomes: Sequence[Outcome]) -> Figure:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="#999", lw=1, ls=":")
    with_objects = [one for one in outcomes if one.sample.objects]
    score = np.array([first_score(one) for one in with_objects])
    right = np.array([one.best_iou >= 0.5 for one in with_objects], dtype=np.bool_)
    axes.plot(*_tenths(score, right), "o-", color=OURS, label="first box of each photo")
    if any(len(one.found) > 1 for one in outcomes):
        score = np.array([item.score or 0.0 for one in outcomes for item in one.found])
        right = np.concatenate([hits(one) for one in outcomes])
        axes.plot(*_tenths(score, right), "s--", color=COLOURS[0], label="all boxes")
        axes.legend(fontsize=7, frameon=False)
    axes.set(xlabel="mean score of a tenth of the boxes", ylabel="share of right ones", xlim=(0, 1), ylim=(0, 1))
    return figure


def _tenths(score: Floats, right: Flags) -> tuple[list[float], list[float]]:
    groups = [group for group in np.array_split(np.argsort(score), min(10, len(score))) if len(group)]
    return [float(score[group].mean()) for group in groups], [float(right[group].mean()) for group in groups]


def _fits(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.best_iou for one in outcomes if one.sample.objects]


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.4))
    return figure, figure.subplots()
