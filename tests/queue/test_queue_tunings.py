"""Tunings in Redis, and which localizer a worker takes for a plan."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis

from backend.announced import tuned_model
from backend.redis_server import RedisServer
from backend.tunings import Tunings
from worker.contract import (
    Head,
    ImageRef,
    Model,
    Plan,
    Request,
    Tuning,
    model_key,
    plan_key,
    tuned_key,
    tuning_key,
)
from worker.errors import ContractError, NetworkError
from worker.plans import Plans

BASE = Model("boxlift-stub-1", "stub", ("cat", "dog"))
TUNING = Tuning(7, BASE.version, "stub", {"threshold": 0.3})
LEARNED = replace(TUNING, head=Head(("zorb",), "", (0.0,)))


@dataclass
class Tunable:
    """A localizer that only says what it would be."""

    model: Model = BASE
    made: list[str] = field(default_factory=list)
    refuses: bool = False

    def localize(self, *_: Any, **__: Any) -> list[Any]:
        raise AssertionError("nobody looks at anything here")

    def tuned(self, tuning: Tuning) -> Tunable:
        if self.refuses:
            raise NetworkError("labels of another network")
        self.made.append(tuning.version)
        return Tunable(tuned_model(tuning, BASE))


@pytest.fixture
def client(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def ask(client: redis.Redis, plan: Plan, version: str) -> Request:

    client.set(plan_key(plan.digest), json.dumps(plan.to_dict()))
    return Request(7, 1, version, plan.digest, (ImageRef("http://h/1.jpg"),))


@pytest.mark.parametrize("tuning", [TUNING, LEARNED])
def test_a_published_tuning_is_used_where_a_plan_names_it(client: redis.Redis, tuning: Tuning) -> None:
    store, own = Tunings(client), Tunable()
    assert store.publish(tuning, BASE) == tuning.version
    assert store.of(7) == tuning
    assert store.of(8) is None
    plans = Plans(client, own)
    classes = tuple(range(len(tuned_model(tuning, BASE).classes)))
    request = ask(client, Plan("<View/>", classes, tuning=tuning.version), tuning.version)
    for _ in range(3):
        plan, localizer = plans.open(request)
        assert (plan.tuning, localizer.model.version) == (tuning.version, tuning.version)
    assert own.made == [tuning.version], "it is kept ready"
    plain = ask(client, Plan("<View/>", (0, 1)), BASE.version)
    assert plans.open(plain)[1] is own


@pytest.mark.parametrize("why", ["gone", "other weights", "refused", "damaged"])
def test_what_cannot_be_used_gives_way_to_the_defaults_with_one_notice(
    client: redis.Redis, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    tuning = replace(TUNING, base="boxlift-stub-0") if why == "other weights" else TUNING
    Tunings(client).publish(tuning, BASE)
    if why == "gone":
        client.delete(tuning_key(tuning.version))
    if why == "damaged":
        client.set(tuning_key(tuning.version), '{"project": 7}')
    own = Tunable(refuses=why == "refused")
    plans = Plans(client, own)
    request = ask(client, Plan("<View/>", (0, 1), tuning=tuning.version), tuning.version)
    with caplog.at_level(logging.WARNING):
        assert {plans.open(request)[1] is own for _ in range(3)} == {True}
    assert len([r for r in caplog.records if tuning.version in r.getMessage()]) == 1


def test_labels_of_its_own_cannot_be_looked_for_without_them(client: redis.Redis) -> None:
    """The plan's class numbers would mean nothing: that is said, instead of looking for something else."""
    gone = replace(LEARNED, base="boxlift-stub-0")
    Tunings(client).publish(gone, BASE)
    request = ask(client, Plan("<View/>", (0, 2), tuning=gone.version), gone.version)
    with pytest.raises(ContractError, match="ask for its predictions again"):
        Plans(client, Tunable()).open(request)


def test_using_a_tuning_keeps_it(client: redis.Redis) -> None:
    store = Tunings(client)
    store.publish(TUNING, BASE)
    keys = tuned_key(7), tuning_key(TUNING.version), model_key(TUNING.version)
    for key in keys:
        client.expire(key, 100)
    store.of(7)
    assert min(client.ttl(key) for key in keys) > 1000


def test_wishes_are_granted_once_and_corrections_counted(client: redis.Redis) -> None:
    store = Tunings(client)
    assert store.wish(7, repredict=True)
    assert not store.wish(7), "one is waited for already"
    newer = store.wishes()
    assert list(newer) == [7]
    assert not json.loads(newer[7])["repredict"]
    assert store.states()[7].state == "waiting"
    assert not store.granted(7, "an older wish")
    assert [store.granted(7, newer[7]), store.granted(7, newer[7])] == [True, False]
    assert [store.corrected(7, 3) for _ in range(7)] == [False, False, True, False, False, True, False]


def test_a_withdrawn_tuning_leaves_the_defaults(client: redis.Redis) -> None:
    store = Tunings(client)

    client.set("boxlift:1:model", json.dumps(BASE.to_dict()))
    store.publish(TUNING, BASE)
    assert store.version(7) == TUNING.version
    assert store.withdraw(7)
    assert not store.withdraw(7)
    assert store.version(7) == BASE.version
