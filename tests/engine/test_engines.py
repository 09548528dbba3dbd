"""The engine that was asked for, or captum with one notice where our table lacks a rule."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from torch import Tensor, nn

from worker.attribution import Attributor
from worker.captum_engine import CaptumAttributor
from worker.choices import ENGINES
from worker.engines import make_attributor
from worker.errors import NetworkError, SettingsError, UnsupportedLayerError
from worker.networks import NETWORKS, Network, Preprocessing

SIZE = (12, 10)


def _network(*layers: nn.Module) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    entry = dataclasses.replace(
        NETWORKS["vgg16"], name="tiny", preprocessing=Preprocessing(size=SIZE), layers=("0", "1")
    )
    return Network("tiny", module.eval(), entry.preprocessing, ("a", "b"), "0" * 64, entry)


def _images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(6))


def test_each_engine_is_had_by_its_name_and_gives_the_same_maps() -> None:
    network = _network(nn.ReLU(), nn.MaxPool2d(2))
    ours, captums = (
        make_attributor(network, engine=engine, precision=torch.float64, layers=["1"], reference=0.5)
        for engine in ENGINES
    )
    assert isinstance(ours, Attributor)
    assert isinstance(captums, CaptumAttributor)
    found, right = captums(_images(), torch.tensor([0, 1])), ours(_images(), torch.tensor([0, 1]))
    torch.testing.assert_close(found.deeplift, right.deeplift)
    torch.testing.assert_close(found.guided, right.guided)
    torch.testing.assert_close(found.layers["1"], right.layers["1"])


def test_captum_takes_over_with_one_notice_where_our_table_lacks_a_layer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = make_attributor(_network(nn.Softplus()), layers=["1"])
        found = engine(_images(), torch.tensor([0, 1]))
        engine(_images(), torch.tensor([1, 1]))
    assert isinstance(engine, CaptumAttributor)
    (notice,) = caplog.records
    assert notice.levelno == logging.WARNING
    assert "tiny: captum takes over, which is slower, because layer '1' (Softplus)" in notice.getMessage()
    assert found.delta.abs().max() < 1e-5


def test_our_own_engine_gives_no_notice(caplog: pytest.LogCaptureFixture) -> None:
    make_attributor(_network(nn.ReLU()))
    make_attributor(_network(nn.Softplus()), engine="captum")
    assert not caplog.records


def test_where_no_engine_knows_a_layer_the_error_names_it() -> None:
    for engine in ENGINES:
        with pytest.raises(UnsupportedLayerError, match=r"layer '1' \(GELU\)"):
            make_attributor(_network(nn.GELU()), engine=engine)


def test_an_unknown_engine_gets_the_names_that_there_are() -> None:
    with pytest.raises(SettingsError, match="engine 'zennit' does not exist: it must be one of boxlift, captum"):
        make_attributor(_network(), engine="zennit")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_inner_layer_is_an_error_not_a_reason_to_change_engines(engine: str) -> None:
    with pytest.raises(NetworkError, match="no layer 'features'") as caught:
        make_attributor(_network(nn.ReLU()), engine=engine, layers=["features"])
    assert not isinstance(caught.value, UnsupportedLayerError)
