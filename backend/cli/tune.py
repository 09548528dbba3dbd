"""`boxlift tune`: learn from a project's corrections."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from worker.errors import BoxliftError

if TYPE_CHECKING:
    from backend.tuning.run import Outcome
    from backend.tunings import Tunings


@click.command()
@click.option("--project", type=click.IntRange(1), required=True, help="Number of the project, as in its address.")
@click.option("--repredict", is_flag=True, help="Predict again the tasks that nobody has annotated.")
@click.option("--dry-run", is_flag=True, help="Say what it would be worth, and change nothing.")
@click.option("--reset", is_flag=True, help="Back to the network's defaults.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(project: int, repredict: bool, dry_run: bool, reset: bool, as_json: bool) -> None:
    """Fit the parameters of a project to the boxes that people drew, and use them for it if they are better.

    Better means: on annotated pictures that had no part in the fit, by more than chance. The project then gets a
    model version of its own. Annotations are never touched.
    """
    from backend.logs import configure
    from backend.queueing import connect
    from backend.settings import Settings
    from backend.studio import Studio
    from backend.tuning import BUSY, ELSEWHERE
    from backend.tuning.lock import BusyError, alone
    from backend.tuning.run import ElsewhereError, tune
    from backend.tunings import Tunings

    settings = Settings.from_env()
    configure(settings.log_level, settings.log_format, settings.secrets())
    logging.getLogger().setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the lock is given back
    client = connect(settings.redis_url)
    store = Tunings(client)
    studio = Studio(settings.studio_url, settings.studio_token)
    try:
        with alone(client, project):
            if reset:
                _reset(store, studio, project, settings.basic_auth, as_json)
                return
            told = _Told(None if dry_run else store, project, quiet=as_json)
            told.say("reading what people drew")
            try:
                outcome = tune(
                    settings, client, studio, project, dry_run=dry_run, repredict=repredict, say=told.say
                )
            except BoxliftError as error:
                told.note("failed", str(error))
                raise
            except BaseException as error:
                told.note("failed", type(error).__name__)
                raise
            told.note("done", summary(outcome), outcome.version if outcome.published else "")
    except ElsewhereError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(ELSEWHERE) from None
    except BusyError as error:
        click.echo(str(error), err=True)
        raise SystemExit(BUSY) from None
    finally:
        studio.close()
    if as_json:
        click.echo(json.dumps(outcome.to_dict()))
    else:
        _show(outcome, dry_run, repredict)


class _Told:
    """How far it is, for whoever looks: here, and in `boxlift status`. A dry run is nobody else's business."""

    def __init__(self, store: Tunings | None, project: int, *, quiet: bool) -> None:
        self._store, self._project, self._quiet = store, project, quiet
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        self.note("running", line)
        if not self._quiet:
            click.echo(line, err=True)

    def note(self, state: str, message: str, version: str = "") -> None:
        if self._store is not None:
            seconds = time.monotonic() - self._began
            self._store.note(self._project, state, message, version=version, seconds=seconds)


def _reset(store: Any, studio: Any, project: int, basic_auth: str, as_json: bool) -> None:
    from backend.connecting import show_version

    was = store.withdraw(project)
    version = store.version(project)
    if was and version:
        show_version(studio, project, version, basic_auth)
    store.note(project, "done", "back to the defaults")
    told = {"project": project, "withdrawn": was, "version": version}
    click.echo(json.dumps(told) if as_json else f"project {project} is predicted by {version}")


def summary(outcome: Outcome) -> str:
    """One line for logs and `boxlift status`."""
    fit, told = outcome.fit, []
    if fit.get("gains"):
        gain = fit["gains"]["mean_iou"]
        told.append(
            f"{outcome.photos} pictures: mean IoU {gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        )
    if outcome.labels.get("head"):
        told.append(f"labels learned: {', '.join(outcome.labels['head'])}")
    if outcome.published:
        told.append("in use")
    elif outcome.withdrawn:
        told.append("back to the defaults")
    elif outcome.version == outcome.was and outcome.was != outcome.base:
        told.append("what is in use stays")
    elif fit.get("better") or outcome.labels.get("head"):
        told.append("better, but nothing was changed")
    elif told:
        told.append("no certain gain, nothing changed")
    return "; ".join(told or outcome.notes) or "nothing to learn from"


def _show(outcome: Outcome, dry_run: bool, repredict: bool) -> None:
    fit = outcome.fit
    if fit.get("before"):
        click.echo(f"{'':18}{'before':>9}{'after':>9}   gain, 90 % of chance")
        for name, label in (
            ("corloc", "right boxes"),
            ("mean_iou", "mean IoU"),
            ("center_hit", "centre inside"),
            ("score_auroc", "score tells (AUC)"),
            ("calibration_error", "score is off by"),
            ("value", "IoU and half right"),
        ):
            before, after = fit["before"].get(name), fit["after"].get(name)
            line = f"{label:18}{_number(before):>9}{_number(after):>9}"
            gain = fit["gains"].get(name)
            if gain:
                line += f"   {gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
            click.echo(line)
        click.echo(
            f"The last line decides: boxes change where its gain is above 0 in {fit['sure']:.0%} of the draws"
        )
        click.echo(f"{outcome.photos} pictures, each measured with what was learned from others: {fit['trial']}")
    for note in outcome.notes:
        click.echo(note)
    if outcome.version != outcome.was:
        click.echo(f"{'would be' if dry_run else 'in use'}: {outcome.version}")
    if outcome.repredicted:
        click.echo(f"{outcome.repredicted} tasks are predicted again")
    elif (outcome.published or outcome.withdrawn) and not repredict:
        click.echo(
            "Predictions that are there stay, but Label Studio shows their scores no longer: a task gets a new one "
            "when it is opened. To have new ones of all that nobody has annotated: "
            f"boxlift preannotate --project {outcome.project} --unannotated"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
