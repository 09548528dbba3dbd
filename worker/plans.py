"""Plans of projects, read from Redis once and kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import redis

from worker.contract import Model, Plan, Request, model_key, plan_key
from worker.errors import ContractError, QueueError
from worker.tunings import Tunings

if TYPE_CHECKING:
    from worker.jobs import Localizer

_MOST = 1000


class Plans:
    """Digest → plan, as this worker's model, or a project's own, has to read it."""

    def __init__(self, client: redis.Redis, localizer: Localizer) -> None:
        self._client = client
        self._tunings = Tunings(client, localizer)
        self._plans: dict[str, Plan] = {}
        self._readable: set[tuple[str, str]] = set()

    def open(self, request: Request) -> tuple[Plan, Localizer]:
        """The plan of a request, and who is to look at its images. Raises QueueError where the plan is gone,
        ContractError where its class indices are those of a model with other classes."""
        plan = self.get(request.plan)
        localizer = self._tunings.localizer(plan.tuning)
        if plan.classes is not None or plan.classes_of is not None:
            self._check(request, localizer.model)
        return plan, localizer

    def get(self, digest: str) -> Plan:
        """A plan by its digest. Raises QueueError where it is gone."""
        if digest not in self._plans:
            text = self._client.get(plan_key(digest))
            if text is None:
                raise QueueError(f"plan {digest} is no longer in Redis: ask for the task's predictions again")
            if len(self._plans) >= _MOST:
                self._plans.clear()
            self._plans[digest] = Plan.from_dict(json.loads(text))
        return self._plans[digest]

    def _check(self, request: Request, model: Model) -> None:
        pair = request.model_version, model.version
        if pair[0] == pair[1] or pair in self._readable:
            return
        text = self._client.get(model_key(request.model_version))
        other = Model.from_dict(json.loads(text)) if text else None
        if other is None or other.classes != model.classes:
            raise ContractError(
                f"task {request.task} was asked for {request.model_version}, whose classes are not those of this "
                f"worker's {model.version}: ask for its predictions again"
            )
        self._readable.add(pair)
