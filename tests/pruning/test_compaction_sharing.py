"""Weights that several layers share, and values that are written in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning.mask import Mask
from tests.pruning.compaction_helpers import assert_exact, holed, images, unsettled, widths


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def block(inputs: int = 6, outputs: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 9), nn.Tanh(), nn.Linear(9, outputs))


class TestTied:
    def test_a_layer_that_is_called_twice_stays(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

            def forward(self, x):
                return self.last(torch.relu(self.again(torch.relu(self.again(self.first(x))))))

        model = unsettled(Twice())
        found = assert_exact(model, holed(model), lambda n: images(n, 4))
        assert found.opaque == {"again": "it is called 2 times"}
        assert found.module.get_parameter("again.weight").shape == (6, 6)

    def test_a_weight_of_two_layers_stays(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.later, self.sooner, self.last = nn.Linear(6, 6), nn.Linear(6, 6), block(6, 2)
                self.sooner.weight = self.later.weight

            def forward(self, x):
                return self.last(self.later(torch.relu(self.sooner(x))))

        model = unsettled(Tied())
        mask = holed(model)
        assert "later.weight" in mask and "sooner.weight" not in mask
        found = assert_exact(model, mask, lambda n: images(n, 6))
        assert set(found.opaque) == {"later", "sooner"} and "'later'" in found.opaque["sooner"]
        assert found.module.get_parameter("later.weight") is found.module.get_parameter("sooner.weight")

    def test_a_weight_that_is_read_by_name_as_well_stays(self):
        class Autoencoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.encode, self.last = nn.Linear(6, 4), nn.Linear(6, 2)

            def forward(self, x):
                return self.last(torch.relu(F.linear(torch.relu(self.encode(x)), self.encode.weight.t())))

        model = unsettled(Autoencoder())
        found = assert_exact(model, holed(model), lambda n: images(n, 6))
        assert list(found.opaque) == ["encode"] and found.module.get_parameter("encode.weight").shape == (4, 6)

    def test_an_activation_may_be_used_everywhere(self):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.act = block(), block(6, 3), nn.GELU()

            def forward(self, x):
                return self.act(self.second(self.act(self.first(x))))

        model = unsettled(Shared())
        found = assert_exact(model, holed(model), lambda n: images(n, 6))
        assert found.opaque == {} and widths(found)["first.2"][1] <= 6


class Overwrites(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first, self.second, self.last, self.how = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2), how

    def forward(self, x):
        return self.last(self.how(self.first(x), self.second))


def _reads_again(x, second):
    y = second(x.relu_())
    return y + x


def _writes_twice(x, second):
    a = x.mul_(2)
    b = F.relu(x, inplace=True)
    return x + a + b.add_(1.0) + second(x)


def _through_a_view(x, second):
    view = x.view(-1, 6)
    view.relu_()
    return x + second(x)


def _through_the_base(x, second):
    view = x.view(-1, 6)
    before = second(view)
    x.sub_(2.0).relu_()
    return view + before


def _into_a_sum(x, second):
    out = second(x)
    out += x
    return F.relu_(out)


@pytest.mark.parametrize("how", [_reads_again, _writes_twice, _through_a_view, _through_the_base, _into_a_sum])
def test_values_that_are_written_in_place(how):
    model = unsettled(Overwrites(how))
    dead = np.ones((6, 4), bool)
    dead[[0, 3, 4]] = False
    for seed in range(3):
        mask = Mask({**holed(model, seed), "first.weight": dead})
        assert_exact(model, mask, lambda n: images(n, 4))
    found = assert_exact(model, Mask({"first.weight": dead}), lambda n: images(n, 4))
    assert found.opaque == {}
    # What is written through a view is not followed; everything else is, under the name of the last write.
    read = int(found.mask["second.weight"].any(0).sum())
    assert read == (6 if how in (_through_a_view, _through_the_base) else 3)
