"""The `boxlift` command. Each subcommand is a module here with one `command`, imported only when it is called."""

from __future__ import annotations

import os

import click

from backend.cli.lazy import LazyGroup
from worker.errors import BoxliftError

# Threads of the network that spin while they wait take the processor from whoever they wait for: on a machine with
# other work to do a batch took 3 to 10 times as long. OpenMP reads this when torch is loaded, so it is set here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS = {
    "alive": "tell whether this machine's worker gives signs of life",
    "accept": "make annotations of confident predictions where nobody has worked",
    "cancel": "take a project's tasks out of the queue",
    "retry": "try failed tasks again",
    "status": "queues, workers, rate, time left, failures",
    "bench": "measure speed against captum, plain forward passes and the queue",
    "connect": "connect a Label Studio project to the backend, or repair its connection",
    "demo": "the whole product on this machine: Redis, worker, backend, Label Studio",
    "doctor": "check Redis, weights, Label Studio and its token, and say what to do",
    "evaluate": "measure boxes against true ones",
    "labels": "show which classes each label of a labelling config takes",
    "localize": "find boxes in image files",
    "preannotate": "draw boxes in a whole data set: a Label Studio project, or files",
    "review": "what people made of a project's predictions",
    "serve": "run the Label Studio ML backend",
    "tune": "learn from a project's corrections",
    "worker": "run a worker that takes tasks from the queue",
}


class _Boxlift(LazyGroup):
    summaries = COMMANDS
    module = "backend.cli.%s"

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BoxliftError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Boxlift, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="boxlift")
def main() -> None:
    """Draft boxes for Label Studio from an image classifier, without a single hand-drawn box."""
