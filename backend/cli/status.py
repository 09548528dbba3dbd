"""`boxlift status`: queues, workers, rate, time left, failures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from backend.overview import Failure, Overview, failures, overview
from backend.queueing import connect
from backend.settings import Settings
from worker.errors import QueueError


@click.command()
@click.option("--watch", is_flag=True, help="Look again every second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--failures", "most", type=click.IntRange(0, 1000), default=10, show_default=True, help="How many.")
def command(watch: bool, as_json: bool, most: int) -> None:
    """What waits, what runs, who works, how fast, until when, and what went wrong."""
    client = connect(Settings.from_env().redis_url)
    if as_json:
        state = overview(client).to_dict() | {"failures": [asdict(item) for item in failures(client, most)]}
        click.echo(json.dumps(state))
        return
    console = Console()
    if not watch:
        console.print(_show(overview(client), failures(client, most) if most else []))
        return
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                try:
                    live.update(_show(overview(client), failures(client, most) if most else []), refresh=True)
                except QueueError as error:
                    live.update(Text(str(error), style="red"), refresh=True)
                time.sleep(1.0)
        except KeyboardInterrupt:
            return


def _show(state: Overview, wrong: list[Failure]) -> Group:
    parts: list[Table | Text] = [_queues(state), _workers(state), _summary(state)]
    if wrong:
        parts.append(_failures(wrong))
    return Group(*parts)


def _queues(state: Overview) -> Table:
    table = Table("queue", title="Queues")
    for name in ("waiting", "running", "paused", "failed", "oldest"):
        table.add_column(name, justify="right")
    for queue in state.queues:
        counts = [f"{number:,}" for number in (queue.waiting, queue.running, queue.paused, queue.failed)]
        table.add_row(queue.name, *counts, _span(queue.oldest) if queue.waiting else "")
    return table


def _workers(state: Overview) -> Table:
    table = Table("worker", "device", "model", title="Workers")
    for name in ("images/s", "batch", "done", "seen"):
        table.add_column(name, justify="right")
    for name, about in state.workers.items():
        rate = float(about.get("rate", 0))
        table.add_row(
            name,
            str(about.get("device", "")),
            str(about.get("version", "")),
            f"{rate:.2f}" if rate else "",
            str(about.get("batch", "")),
            f"{int(about.get('done', 0)):,}",
            f"{float(about['age']):.0f} s ago",
        )
    return table


def _summary(state: Overview) -> Text:
    done = sum(
        value for name, value in state.stats.items() if name.startswith("jobs:") and name.endswith(":finished")
    )
    speed = f"{state.rate:.2f} images/s while computing"
    lines = [f"{done:,.0f} tasks done, {speed}, Redis uses {state.memory / 1e6:.1f} MB"]
    if not state.workers:
        lines.append("No worker is alive: start `boxlift worker`.")
    if state.eta:
        lines.append(f"All done in about {_span(state.eta)}, at {state.pace:.2f} tasks/s.")
    lines += [
        f"Project {project}: {count:,} results not in Label Studio yet"
        for project, count in state.undelivered.items()
    ]
    lines += [
        f"Project {project}: tuning {told.state} since {time.strftime('%m-%d %H:%M:%S', time.localtime(told.at))}"
        + (f": {told.message}" if told.message else "")
        for project, told in state.tunings.items()
    ]
    return Text("\n".join(lines))


def _failures(wrong: list[Failure]) -> Table:
    table = Table("when", "project", "task", "reason", title="Failures (boxlift retry tries them again)")
    for item in wrong:
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(item.at))
        table.add_row(when, str(item.project), str(item.task), Text(item.reason))
    return table


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
