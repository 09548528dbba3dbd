"""The one LabelStudioMLBase subclass. Our routes make one per request; label-studio-ml's own servers may too.

    from label_studio_ml.api import init_app
    from backend.model import BoxliftModel
    app = init_app(model_class=BoxliftModel)   # 1.0.9 from PyPI, and 2.x from its repository

Settings then come from the environment. Both base classes differ in almost everything (constructor, predict, fit):
what they share is handled here, the work is done by backend.predictor.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from backend.predictor import Entry, Predictor, project_id
from backend.settings import Settings
from worker.errors import BoxliftError, QueueFullError

_TORCH = "torch"


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make `import name` fail for a while, loaded or not.

    label_studio_ml.model imports torch where it finds it, and even sets its way of starting processes.
    """
    absent = object()
    before: Any = sys.modules.get(name, absent)
    sys.modules[name] = None  # type: ignore[assignment]  # tells the import system "not there"
    try:
        yield
    finally:
        if before is absent:
            del sys.modules[name]
        else:
            sys.modules[name] = before


if TYPE_CHECKING:

    class LabelStudioMLBase:
        """What both versions have in common, for the type checker."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def set(self, key: str, value: str) -> None: ...
else:
    with _hidden(_TORCH), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own code, which nobody here can change
        from label_studio_ml.model import LabelStudioMLBase

_PER_PROJECT = "project_id" in inspect.signature(LabelStudioMLBase.__init__).parameters
"""Whether this is label-studio-ml 2.x, whose models belong to a project and keep their state in a cache."""


@functools.cache
def _environment_predictor() -> Predictor:
    """The predictor of label-studio-ml's own servers: settings from the environment, made at the first request."""
    return Predictor.from_settings(Settings.from_env())


class BoxliftModel(LabelStudioMLBase):
    """Predicts boxes for one project. Holds no weights and no state: workers do the work, Redis keeps it."""

    def __init__(
        self,
        project_id: str | int | None = None,
        label_config: str | None = None,
        train_output: Mapping[str, Any] | None = None,
        *,
        predictor: Predictor | None = None,
        **others: Any,
    ) -> None:
        self._predictor = predictor
        self._config = label_config
        if predictor is not None:  # one of ours, for one request: the base class would parse the config once more
            self.project_id = str(project_id or "")
        elif _PER_PROJECT:
            super().__init__(project_id=project_id, label_config=label_config)
        else:
            super().__init__(label_config=label_config, train_output=train_output, **others)
            self.project_id = str(project_id or "")

    def setup(self) -> None:
        """2.x: called by its constructor; tells it the version that /setup answers with."""
        version = self.version()
        if version:
            self.set("model_version", version)

    def set_extra_params(self, extra_params: Any) -> None:
        """2.x: its own method stores what Label Studio sends as it is, and fails: its state takes only strings."""
        self.set("extra_params", json.dumps(extra_params))

    def version(self) -> str:
        """The version that predicts for the project; empty before a worker announced one."""
        try:
            return self.predictor.model(project_id(self.project_id)).version
        except BoxliftError:
            return ""

    @property
    def predictor(self) -> Predictor:
        """Whoever does the work."""
        return self._predictor or _environment_predictor()

    def predict(self, tasks: Sequence[Any], context: Mapping[str, Any] | None = None, **others: Any) -> list[Entry]:
        """One entry for each task, in order: a prediction, or [] for "not yet". Interactive: one prediction.

        Raises QueueFullError under our own routes, which answer 503; other servers know nothing better than [].
        """
        project = project_id(self.project_id) or _project_of(tasks)
        if asked_interactively(tasks, context):
            return list(self.predictor.assist(project or 0, tasks, self._config, context))
        if project is None:
            return [[] for _ in tasks]
        try:
            return self.predictor.predict(project, tasks, self._config)
        except QueueFullError:
            if self._predictor is not None:
                raise
            return [[] for _ in tasks]

    def fit(
        self, *args: Any, event: str = "", data: Mapping[str, Any] | None = None, **others: Any
    ) -> dict[str, Any]:
        """Start training asks for a tuning of the project; nothing is trained here.

        1.0.9: fit((), event=, data=, …); 2.x: fit(event, data, …).
        """
        action = event or next((one for one in args if isinstance(one, str)), "")
        body = data or next((one for one in args if isinstance(one, Mapping)), {})
        project = body.get("project")
        number = project_id(project.get("id")) if isinstance(project, Mapping) else None
        if action == "START_TRAINING" and number is not None:
            repredict = self.predictor.settings.tune_repredict == "yes"
            with suppress(BoxliftError):
                self.predictor.wish_tuning(number, repredict=repredict)
        return {"model_version": self.version()}


def asked_interactively(tasks: Sequence[Any], context: Mapping[str, Any] | None) -> bool:
    """Whether somebody waits for one answer: with a drawing in `context`, or a task that carries its drafts."""
    return bool(context) or any(isinstance(task, Mapping) and "drafts" in task for task in tasks)


def _project_of(tasks: Sequence[Any]) -> int | None:
    """1.0.9 does not say which project it predicts for, but the tasks do."""
    for task in tasks:
        found = project_id(task.get("project")) if isinstance(task, Mapping) else None
        if found is not None:
            return found
    return None
