"""A localizer with one project's tuning: other parameters, the same network and the same pass through it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.pipeline.conftest import picture
from worker.contract import Tuning
from worker.errors import ContractError
from worker.localizer import Localizer
from worker.networks import Network
from worker.parameters import Calibration, Parameters, Regression

PATCH = ("green", (16, 16, 48, 40))


def tuning(localizer: Localizer, parameters: Parameters | None) -> Tuning:
    return Tuning(7, localizer.version, "patches", parameters.to_dict() if parameters else None)


def test_its_parameters_draw_and_its_version_signs(network: Network, plain: Parameters) -> None:
    localizer = Localizer(network, plain)
    looser = tuning(localizer, replace(plain, threshold=0.05, sources=plain.sources[:1]))
    mine = localizer.tuned(looser)
    assert mine.model.version == looser.version != localizer.version
    assert mine.model.classes == localizer.model.classes
    [[before]], [[after]] = (one.localize([picture((64, 64), PATCH)]) for one in (localizer, mine))
    assert after.box != before.box
    assert after == Localizer(network, mine.parameters).localize([picture((64, 64), PATCH)])[0][0]
    assert localizer.localize([picture((64, 64), PATCH)]) == [[before]], "the worker's own stays as it was"


def test_what_is_prepared_of_the_network_is_shared(network: Network, plain: Parameters) -> None:
    localizer = Localizer(network, plain)
    assert localizer.tuned(tuning(localizer, replace(plain, threshold=0.3)))._attribute is localizer._attribute
    other = localizer.tuned(tuning(localizer, replace(plain, reference="black")))
    assert other._attribute is not localizer._attribute, "another reference gives other maps"


def test_without_parameters_the_workers_own_are_used(network: Network, plain: Parameters) -> None:
    localizer = Localizer(network, plain)
    assert localizer.tuned(tuning(localizer, None)).parameters == plain


@pytest.mark.parametrize(
    "wrong",
    [
        {"regression": Regression((1.0,), (1.0,), (0.0,), 0.0, 0.0, 0.0)},
        {"calibration": Calibration((1.0, 2.0), 0.0)},
    ],
)
def test_weights_of_another_version_are_refused(
    network: Network, plain: Parameters, wrong: dict[str, object]
) -> None:
    localizer = Localizer(network, plain)
    with pytest.raises(ContractError, match="tune the project again"):
        localizer.tuned(tuning(localizer, replace(plain, **wrong)))  # type: ignore[arg-type]


def test_parameters_that_nobody_knows_are_refused(network: Network, plain: Parameters) -> None:
    localizer = Localizer(network, plain)
    strange = Tuning(7, localizer.version, "patches", plain.to_dict() | {"colour": "blue"})
    with pytest.raises(ContractError, match="tune the project again"):
        localizer.tuned(strange)
