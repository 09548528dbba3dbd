"""Plans of projects, read from Redis once and kept."""

from __future__ import annotations

import json

import redis

from worker.contract import Model, Plan, Request, model_key, plan_key
from worker.errors import ContractError, QueueError

_MOST = 1000


class Plans:
    """Digest → plan, as this worker's model has to read it."""

    def __init__(self, client: redis.Redis, model: Model) -> None:
        self._client = client
        self._model = model
        self._plans: dict[str, Plan] = {}
        self._readable = {model.version}

    def plan(self, request: Request) -> Plan:
        """The plan of a request. Raises QueueError where it is gone, ContractError where its class indices are
        those of a model with other classes than this worker's."""
        plan = self.get(request.plan)
        by_index = plan.classes is not None or plan.classes_of is not None
        if by_index and request.model_version not in self._readable:
            self._check(request)
        return plan

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

    def _check(self, request: Request) -> None:
        text = self._client.get(model_key(request.model_version))
        other = Model.from_dict(json.loads(text)) if text else None
        if other is None or other.classes != self._model.classes:
            raise ContractError(
                f"task {request.task} was asked for {request.model_version}, whose classes are not those of this "
                f"worker's {self._model.version}: ask for its predictions again"
            )
        self._readable.add(request.model_version)
