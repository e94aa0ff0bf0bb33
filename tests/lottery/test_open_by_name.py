"""A ticket of a registered model opens by itself; what else a stored record names is not followed."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from torch import nn

from lottery import Ticket, find_ticket
from lottery.networks.models import MODELS
from lottery.networks.sources.recorded import maker_of
from lottery.state.tensors import state_of
from pruning.errors import BadValue, MaskMismatch, UnknownName, UsageError
from tests.lottery.helpers import blobs, tiny_model

IMAGES = torch.zeros(2, 1, 8, 8)
SHAPES = {"policy": (4,), "mlp": (1, 8, 8), "lenet-300-100": (28, 28)}


@pytest.fixture(scope="module")
def ticket(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return find_ticket(data="digits", levels=1, steps=20, tolerance=1.0, quiet=True, out=out)


def without(ticket, *keys, **changes):
    """The ticket with another record."""
    info = {key: value for key, value in ticket.info.items() if key not in keys}
    return dataclasses.replace(ticket, info={**info, **changes})


def test_the_models_name_and_sizes_are_recorded_and_open_it(ticket):
    loaded = Ticket.load(ticket.path)
    assert loaded.info["sizes"] == {"input_shape": [1, 8, 8], "outputs": 10}
    expected = loaded.trained(MODELS["mlp"].value((1, 8, 8), 10))(IMAGES)
    for network in (loaded.trained(), loaded.trained("mlp"), loaded.sparse(None, IMAGES), loaded.sparse(IMAGES)):
        torch.testing.assert_close(network(IMAGES), expected)
    assert loaded.rewound()(IMAGES).shape == (2, 10)
    assert "ticket.trained()" in (ticket.path / "README.md").read_text()


@pytest.mark.parametrize("name", MODELS.names())
def test_sizes_that_are_not_recorded_are_found_from_the_tensors(name):
    torch.manual_seed(0)
    network = MODELS[name].value(SHAPES.get(name, (3, 32, 32)), 7)
    again = maker_of(name, {}, state_of(network))(0)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_a_maker_of_shape_and_outputs_opens_with_the_recorded_sizes(tmp_path):
    def make(shape, outputs):
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], 4), nn.ReLU(), nn.Linear(4, outputs))

    found = find_ticket(make, blobs(), levels=1, steps=20, tolerance=1.0, quiet=True, out=tmp_path)
    assert found.trained(make)(torch.zeros(1, 6)).shape == (1, 3)
    with pytest.raises(UsageError, match="model has no name: hand it over"):
        found.trained()
    with pytest.raises(BadValue, match="does not say what shape"):
        without(found, "sizes").trained(make)


def test_what_cannot_be_told_is_one_line(ticket, tmp_path):
    with pytest.raises(UnknownName, match="unknown model 'mpl'"):
        ticket.trained("mpl")
    with pytest.raises(MaskMismatch, match="'lenet-300-100' does not have this ticket's tensors"):
        ticket.trained("lenet-300-100")
    with pytest.raises(BadValue, match="not int"):
        ticket.rewound(3)
    found = find_ticket(tiny_model(), blobs(), levels=1, steps=20, tolerance=1.0, quiet=True, out=tmp_path)
    for opened in (found.rewound, found.trained, found.sparse):
        with pytest.raises(UsageError, match="model has no name"):
            opened()


@pytest.mark.parametrize("shape", [[10**18], [10**30], [], [1, 8, 8, 8, 8]])
def test_a_hostile_record_takes_no_memory_and_makes_no_other_model(ticket, shape):
    with pytest.raises(MaskMismatch, match="does not have this ticket's tensors"):
        without(ticket, sizes={"input_shape": shape, "outputs": 10}).trained()


@pytest.mark.parametrize("shape", [[-1], ["8"], [True], {}, None, 64])
def test_a_record_without_sense_counts_as_none(ticket, shape):
    assert without(ticket, sizes={"input_shape": shape, "outputs": 10}).trained()(IMAGES).shape == (2, 10)


def test_a_stored_path_is_not_imported_and_a_named_one_is(ticket, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stored_net.py").write_text(
        "from lottery.networks.models import MODELS\nMAKES = []\n"
        "def net():\n    MAKES.append(1)\n    return MODELS['mlp'].value((1, 8, 8), 10)\n"
    )
    changed = without(ticket, given={"model": "stored_net:net", "data": "digits"})
    for opened in (changed.rewound, changed.trained, changed.sparse):
        with pytest.raises(UsageError, match="nothing that a ticket names is imported"):
            opened()
    assert "stored_net" not in sys.modules
    assert changed.trained("stored_net:net")(IMAGES).shape == (2, 10)
    assert sys.modules["stored_net"].MAKES == [1]
