"""`boxlift review`: what people made of a project's predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from backend.labelling import Labelling
    from backend.review.figures import Review, Tally
    from backend.review.page import Shown
    from backend.review.worst import Case
    from backend.settings import Settings

GALLERY = 24
"""Pictures on the page."""
SIDE = 480
"""Their longer side, in pixels."""


@click.command()
@click.option("--project", type=click.IntRange(1), required=True, help="Number of the project, as in its address.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots and pictures."
)
@click.option("--pictures", type=click.IntRange(0, 200), default=GALLERY, show_default=True, help="On that page.")
@click.option("--draw-seconds", type=click.FloatRange(0), help="Time to draw a box. [default: 25.5]")
@click.option(
    "--check-seconds", type=click.FloatRange(0), help="To look at one and accept or delete it. [default: 1.6]"
)
@click.option("--move-seconds", type=click.FloatRange(0), help="To move its sides. [default: 10]")
@click.option("--relabel-seconds", type=click.FloatRange(0), help="To change its label. [default: 5]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def command(
    project: int,
    html: Path | None,
    pictures: int,
    draw_seconds: float | None,
    check_seconds: float | None,
    move_seconds: float | None,
    relabel_seconds: float | None,
    as_json: bool,
) -> None:
    """What became of our boxes where people have annotated: accepted, moved, relabelled, deleted, added, skipped.

    Also the accuracy over time, what the score is worth, and an estimate of the time saved. Nothing is changed.
    """
    from backend.corrections import corrections
    from backend.labelling import parse_config
    from backend.review.figures import review
    from backend.review.page import render
    from backend.review.savings import Costs
    from backend.review.worst import worst
    from backend.settings import Settings
    from backend.studio import Studio

    settings = Settings.from_env()
    studio = Studio(settings.studio_url, settings.studio_token)
    about = studio.project(project)
    labelling = parse_config(about.label_config or "")
    given = {"draw": draw_seconds, "check": check_seconds, "move": move_seconds, "relabel": relabel_seconds}
    costs = Costs(**{name: value for name, value in given.items() if value is not None})
    found = review(project, corrections(studio, project, labelling), costs)
    if html is not None:
        link = lambda case: f"{studio.url}/projects/{project}/data?task={case.correction.task}"  # noqa: E731
        shown, notes = _gallery(settings, labelling, worst(found.boxes, pictures), link)
        title = f"Review of {about.title or f'project {project}'}"
        _write(html, render(found, shown, title=title, notes=notes))
    if as_json:
        click.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    _show(found)
    if html is not None:
        click.echo(f"Page: {html}")


def _write(html: Path, page: str) -> None:
    """In one piece: whoever reads an older page there never sees half of this one."""
    from backend.bulk.formats import whole_file

    try:
        with whole_file(html) as file:
            file.write(page)
    except OSError as error:
        raise click.ClickException(f"{html} cannot be written ({error.strerror}): choose another --html") from None


def _gallery(
    settings: Settings, labelling: Labelling, cases: Sequence[Case], link: Callable[[Case], str]
) -> tuple[list[Shown], list[str]]:
    """The cases with their pictures, fetched as workers fetch them; and what the reader should know."""
    from backend.review.page import Shown

    try:
        from backend.cli.worker import fetch_policy
        from worker.images import ImageLimits
    except ImportError as error:
        note = f"No pictures: {error.name} is not installed here (install boxlift[worker])"
        return [Shown(case, reason="no picture", link=link(case)) for case in cases], [note] if cases else []
    policy = fetch_policy(settings)
    limits = ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    return [_picture(case, labelling, policy, limits, link(case)) for case in cases], []


def _picture(case: Case, labelling: Labelling, policy, limits, link: str) -> Shown:  # type: ignore[no-untyped-def]
    import base64
    import io

    from backend.labelling import task_images
    from backend.review.page import Shown
    from worker.errors import ImageError
    from worker.images import decode, fetch
    from worker.images.fetch import printable

    tag, page = case.place
    refs = [r for r in task_images(case.correction.data, labelling) if (r.to_name, r.item_index) == (tag, page)]
    if not refs:
        return Shown(case, reason="the task does not show this picture any more", link=link)
    try:
        photo = decode(fetch(refs[0].url, policy), limits, name=printable(refs[0].url))
    except ImageError as error:
        return Shown(case, reason=str(error), link=link)
    small = photo.image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Shown(case, uri, small.width, small.height, link=link)


def _show(review: Review) -> None:
    from backend.review.page import share, span

    console = Console(highlight=False)
    told = f"{review.tasks} tasks annotated, {review.skipped} of them skipped"
    if review.without_prediction:
        told += f"; {review.without_prediction} showed no prediction of ours"
    console.print(told)
    if not review.total.ours and not review.boxes:
        console.print("Nothing to review yet: people have not worked on tasks with predictions of ours.")
        return
    console.print(_tallies("label", [*review.labels, review.total]))
    if len(review.versions) > 1:
        console.print(_tallies("version", review.versions))
    if len(review.trend) > 1:
        console.print(_tallies("time", review.trend))
    console.print(_calibration(review))
    saved = review.savings
    console.print(
        f"Estimated: {span(saved.without)} to draw all boxes, {span(saved.with_drafts)} with drafts; "
        f"{span(saved.saved)} saved ({share(saved.share)})"
    )


def _tallies(first: str, rows: Sequence[Tally]) -> Table:
    from backend.review.matching import FATES
    from backend.review.page import share

    table = Table(first, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in (*FATES, "right", "IoU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        counts = [str(row.counts[fate]) for fate in FATES]
        moved = "–" if row.moved_iou is None else f"{row.moved_iou:.2f}"
        table.add_row(Text(row.name), *counts, share(row.accuracy), moved)
    return table


def _calibration(review: Review) -> Table:
    from backend.review.page import share

    error = review.calibration.error
    title = "What scores are worth" + ("" if error is None else f" (calibration error {error:.3f})")
    table = Table("score", title=title, title_justify="left")
    for heading in ("boxes", "mean score", "right", "95 % interval"):
        table.add_column(heading, justify="right")
    for part in review.calibration.bins:
        low, high = part.interval
        interval = f"{share(low)} to {share(high)}"
        table.add_row(
            f"{part.low:.1f} to {part.high:.1f}", str(part.boxes), f"{part.score:.2f}", share(part.right), interval
        )
    return table
