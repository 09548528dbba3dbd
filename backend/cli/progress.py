"""How far a long run is, on standard error; and what it came to, as tables."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from backend.bulk.summary import Summary

LINE_EVERY = 15.0
"""Seconds between two lines where standard error is no terminal."""
SHOWN = 20
"""Failures in the table; --json has them all."""


class Rate(ProgressColumn):
    """Tasks a second."""

    def render(self, task: Task) -> Text:
        """Since the start, without what was done before."""
        speed = (task.completed - task.fields["before"]) / task.elapsed if task.elapsed else 0.0
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class Bar:
    """A progress bar with rate and time left on a terminal; a line now and then elsewhere. A context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task: TaskID | None = None
        self._start = (0.0, 0)
        self._last = 0.0
        self._said = ""

    def say(self, text: str) -> None:
        """Something that happens once."""
        self._console.print(text, markup=False)

    def idle(self, reason: str) -> None:
        """What is waited for: said once until it changes."""
        if reason != self._said and not reason[:1].isdigit():
            self.say(reason)
        self._said = reason

    def progress(self, done: int, failed: int, total: int) -> None:
        """So many tasks are done and failed, of so many."""
        ended, now = done + failed, time.monotonic()
        text = f"Boxes ({failed} failed)" if failed else "Boxes"
        if self._task is None:
            self._start = (now, ended)
            self._task = self._bar.add_task(text, total=total, completed=ended, before=ended)
        self._bar.update(self._task, total=total, completed=ended, description=text)
        if not self._console.is_terminal and (now - self._last > LINE_EVERY or ended == total):
            self._last = now
            self.say(self._line(ended, failed, total, now))

    def _line(self, ended: int, failed: int, total: int, now: float) -> str:
        since, before = self._start
        rate = (ended - before) / (now - since) if now > since else 0.0
        left = f", {(total - ended) / rate:.0f} s left" if rate and ended < total else ""
        speed = f", {rate:.1f}/s" if rate else ""
        return f"{ended} of {total} tasks" + (f", {failed} failed" if failed else "") + speed + left

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def show(summary: Summary) -> None:
    """The summary of a run, as people read it."""
    console = Console(highlight=False)
    told = [f"{summary.done} of {summary.total} tasks have their prediction of {summary.version}"]
    if summary.already:
        told.append(f"{summary.already} had it before")
    if summary.empty:
        told.append(f"{summary.empty} without a box: nothing was found")
    if summary.computed:
        told.append(f"{summary.computed} in {summary.seconds:.0f} s, {summary.rate:.2f} a second")
    for line in told:
        console.print(line, markup=False)
    if summary.labels:
        console.print(_boxes(summary))
        console.print(_scores(summary))
    for warning in summary.warnings:
        console.print(f"Warning: {warning}", style="yellow", markup=False)
    if summary.failures:
        console.print(_failures(summary))


def _boxes(summary: Summary) -> Table:
    table = Table("label", title="Boxes", title_justify="left")
    table.add_column("boxes", justify="right")
    for label, number in summary.labels.most_common():
        table.add_row(Text(label), f"{number:,}")
    return table


def _scores(summary: Summary) -> Table:
    table = Table("score", "", title="Scores", title_justify="left")
    table.add_column("boxes", justify="right")
    most = max(summary.scores) or 1
    for number, count in enumerate(summary.scores):
        low, high = number / len(summary.scores), (number + 1) / len(summary.scores)
        table.add_row(f"{low:.1f} to {high:.1f}", "█" * round(30 * count / most), f"{count:,}")
    return table


def _failures(summary: Summary) -> Table:
    table = Table("task", "reason", title=f"{summary.failed} without a prediction", title_justify="left")
    for what, reason in list(summary.failures.items())[:SHOWN]:
        table.add_row(Text(what), Text(reason))
    if summary.failed > SHOWN:
        table.add_row("…", f"and {summary.failed - SHOWN} more: --json lists all")
    return table
