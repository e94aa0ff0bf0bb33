"""The chain of layers that data runs through, and the units that keep their places in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lottery.networks.models import MODELS
from lottery.networks.models.resnet import Block
from lottery.studies.measures.dataflow import layer_chain
from pruning.errors import BadValue
from pruning.torch_modules import prunable


def test_a_chain_is_found_in_the_order_of_the_data():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(8, 2)
            self.first = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.last(torch.relu_(self.first(x)).flatten(1))

    assert list(layer_chain(Backwards(), torch.ones(2, 1, 4, 4))) == ["first.weight", "last.weight"]


class _Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return hidden + self.b(hidden)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (_Skip(), torch.ones(2, 3), "'the output' is fed by 'a.weight' and 'b.weight'"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), Block(2, 2, 1)), torch.ones(2, 1, 4, 4), "is fed by '0.weight' and "),
        (nn.Sequential(*[nn.Linear(3, 3)] * 2), torch.ones(2, 3), "'0.weight' is used twice"),
        (
            nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)),
            torch.ones(1, 2, 3, 3),
            "'0.weight' is a convolution in 2 groups",
        ),
        (nn.Sequential(nn.LSTM(3, 2)), torch.ones(1, 2, 3), "'0.weight_ih_l0' belongs to LSTM"),
        (nn.Sequential(nn.Linear(3, 2)), torch.ones(2, 3, dtype=torch.int64), "from a floating-point input only"),
    ],
)
def test_what_is_no_chain_is_one_line_that_names_the_tensor(model, inputs, message):
    with pytest.raises(BadValue, match="chain") as caught:
        layer_chain(model, inputs)
    assert message in str(caught.value) and "\n" not in str(caught.value)


class _Channels(nn.Module):
    """Two convolutions or a convolution and a linear layer, with something between them."""

    def __init__(self, between, last: nn.Module):
        super().__init__()
        self.first, self.between, self.last = nn.Conv2d(1, 4, 3), between, last

    def forward(self, x):
        return self.last(self.between(torch.relu(self.first(x))))


def _shuffled(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)


def _swapped_in_the_middle(x: torch.Tensor) -> torch.Tensor:
    return x[:, [*range(10), 11, 10, *range(12, 24)]]


IMAGES = torch.ones(2, 1, 6, 6)
FLAT = torch.ones(2, 5)


@pytest.mark.parametrize(
    ("model", "inputs", "names"),
    [
        (nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)), FLAT, ("0", "2")),
        (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.GroupNorm(2, 8), nn.Linear(8, 3)), FLAT, ("0", "3")),
        (nn.Sequential(nn.Linear(5, 8), nn.Softmax(-1), nn.Linear(8, 3)), FLAT, ("0", "2")),
        (_Channels(lambda x: x.permute(0, 2, 3, 1).flatten(1), nn.Linear(64, 3)), IMAGES, ("first", "last")),
        (_Channels(_shuffled, nn.Conv2d(4, 2, 1)), IMAGES, ("first", "last")),
        (_Channels(lambda x: x.flatten(2), nn.Linear(16, 3)), IMAGES, ("first", "last")),
    ],
)
def test_units_that_are_mixed_or_reordered_between_layers_are_no_chain(model, inputs, names):
    with pytest.raises(BadValue, match="mixed or reordered") as caught:
        layer_chain(model, inputs)
    for name in names:
        assert repr(f"{name}.weight") in str(caught.value) and "\n" not in str(caught.value)


def test_two_neighbours_that_change_places_are_found_wherever_they_are():
    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 24), nn.Linear(24, 2)

        def forward(self, x):
            return self.b(_swapped_in_the_middle(self.a(x)))

    with pytest.raises(BadValue, match="units of 'a.weight' are mixed or reordered before 'b.weight'"):
        layer_chain(Swapped(), FLAT)


@pytest.mark.parametrize(
    ("model", "inputs", "count"),
    [
        (nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 3)), FLAT, 2),
        (_Channels(nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), nn.Linear(16, 3)), IMAGES, 2),
        (_Channels(nn.Sequential(nn.GroupNorm(4, 4), nn.AvgPool2d(2)), nn.Conv2d(4, 2, 1)), IMAGES, 2),
        (_Channels(lambda x: x.mean((2, 3)), nn.Linear(4, 3)), IMAGES, 2),
        (nn.Sequential(nn.Linear(5, 4), nn.Softmax(-1)), FLAT, 1),
    ],
)
def test_what_keeps_units_apart_between_layers_is_a_chain(model, inputs, count):
    state = torch.random.get_rng_state()
    assert len(layer_chain(model, inputs)) == count
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("name", "shape"), [("lenet-300-100", (1, 28, 28)), ("conv-2", (3, 32, 32)), ("policy", (4,))])
def test_the_models_of_the_papers_are_chains(name, shape):
    model = MODELS[name].value(shape, 10)
    assert len(layer_chain(model, torch.zeros(2, *shape))) == len(prunable(model))
