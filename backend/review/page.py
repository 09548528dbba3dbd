"""The review as one page that needs nothing else: figures, plots as SVG, and the worst pictures with both boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2

from backend.review.figures import Review
from backend.review.matching import FATES
from backend.review.worst import Case


@dataclass(frozen=True)
class Shown:
    """A case with its picture."""

    case: Case
    image: str = ""
    """As a data: URI; empty where it could not be had."""
    width: int = 0
    height: int = 0
    reason: str = ""
    """Why there is no picture."""
    link: str = ""
    """Address of the task in Label Studio."""


def render(review: Review, gallery: Sequence[Shown], *, title: str, notes: Sequence[str] = ()) -> str:
    """The page's HTML. Everything that comes from Label Studio is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"share": share, "span": span}
    template = (resources.files("backend.review") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        review=review, gallery=gallery, title=title, notes=notes, fates=FATES, costs=review.costs
    )


def share(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.0f} %"


def span(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "–"
    sign, whole = "−" if seconds < 0 else "", abs(seconds)
    if whole < 120:
        return f"{sign}{whole:.0f} s"
    return f"{sign}{whole / 60:.0f} min" if whole < 7200 else f"{sign}{whole / 3600:.1f} h"
