"""Channels through changes of shape and over positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning.compaction import compact
from pruning.mask import Mask
from tests.pruning.compaction_helpers import assert_exact, dense, holed, images, rows, unsettled, widths


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


SHAPES = {
    "view": lambda x: x.view(x.size(0), -1),
    "view with sizes": lambda x: x.view(x.shape[0], x.shape[1] * x.shape[2] * x.size(3)),
    "view with all sizes": lambda x: x.view(x.size()[0], 6 * 9),
    "written out": lambda x: x.view(-1, 54),
    "a tuple": lambda x: x.reshape((x.size(0), 54)),
    "torch.reshape": lambda x: torch.reshape(x, (-1, 54)),
    "torch.flatten": lambda x: torch.flatten(x, 1),
    "flatten in steps": lambda x: x.flatten(2).flatten(start_dim=1),
    "permuted": lambda x: x.permute(0, 2, 3, 1).reshape(-1, 9, 6).transpose(1, 2).flatten(1),
    "unsqueezed": lambda x: x.unsqueeze(1).unsqueeze(-1).squeeze(-1).permute(0, 2, 1, 3, 4).flatten(1),
    "squeezed": lambda x: x.unsqueeze(1).squeeze(1).flatten(1),
    "counted": lambda x: (x * (x.size(1) - x.shape[-3] + x.size()[1])).flatten(1),
    "padded": lambda x: F.pad(x, (0, 1, 0, 0))[..., :-1].flatten(1),
    "there and back": lambda x: torch.relu(x.flatten(1).view(-1, 6, 3, 3)).flatten(1),
    "whole sizes": lambda x: x.new_ones(x.size()).mul(x).flatten(1),
    "examples merged": lambda x: x.reshape(x.size(0) * 6, 9).reshape(-1, 54),
    "channels split": lambda x: x.view(-1, 2, 3, 3, 3).flatten(1),
}


class Shaped(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.conv, self.last, self.shape = nn.Conv2d(2, 6, 3), nn.Linear(54, 4), shape

    def forward(self, x):
        return self.last(self.shape(torch.sigmoid(self.conv(x))))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("example", [1, 6])
def test_shapes_are_followed_whatever_the_batch(shape, example):
    model = unsettled(Shaped(shape))
    for seed in range(2):
        assert_exact(model, holed(model, seed), lambda n: images(n, 2, 5, 5), example=example, batches=(1, 6, 9))


READ_WHOLE = ("counted", "squeezed", "padded", "whole sizes", "examples merged", "channels split")


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in READ_WHOLE])
def test_channels_shrink_through_shapes(name):
    model = unsettled(Shaped(SHAPES[name]))
    found = assert_exact(model, rows(model, conv=[0, 3]), lambda n: images(n, 2, 5, 5))
    assert found.module.get_parameter("conv.weight").shape[0] == 4


def test_a_number_of_channels_stays_what_it_was():
    model = unsettled(Shaped(SHAPES["counted"]))
    keep = np.ones((4, 6, 9), bool)
    keep[:, [0, 3]] = False
    found = assert_exact(model, Mask({"last.weight": keep.reshape(4, 54)}), lambda n: images(n, 2, 5, 5))
    assert widths(found) == {"conv": (2, 4), "last": (36, 4)}


REDUCED = {
    "mean": lambda x: x.mean((2, 3)),
    "mean in steps": lambda x: x.mean(3).mean(dim=-1, keepdim=True).flatten(1),
    "torch.mean": lambda x: torch.mean(x, dim=[2, 3]),
    "amax": lambda x: x.amax((-1, -2)),
    "sum": lambda x: x.sum((2, 3)),
    "sum of zeros": lambda x: torch.relu(x - 5).sum((2, 3)),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (1, 1)).squeeze(-1).squeeze(-1),
    "upsampled": lambda x: F.interpolate(x, scale_factor=2).mean((2, 3)),
    "max": lambda x: F.max_pool2d(x, 3).flatten(1),
    "of channels": lambda x: x.mean(1, keepdim=True).mean((2, 3)) * torch.ones(6, dtype=torch.float64),
}


class Reduced(nn.Module):
    def __init__(self, reduce):
        super().__init__()
        self.conv, self.last, self.reduce = nn.Conv2d(2, 6, 3), nn.Linear(6, 4), reduce

    def forward(self, x):
        return self.last(self.reduce(torch.sigmoid(self.conv(x)) * 2))


@pytest.mark.parametrize("name", REDUCED)
def test_positions_are_reduced(name):
    model = unsettled(Reduced(REDUCED[name]))
    found = assert_exact(model, rows(model, conv=[0, 3]), lambda n: images(n, 2, 5, 5))
    assert widths(found)["last"][0] == {"sum": 6, "of channels": 6}.get(name, 4)
    for seed in range(2):
        assert_exact(model, holed(model, seed), lambda n: images(n, 2, 5, 5))


def test_another_image_size_than_the_example_is_fine_where_the_network_takes_it():
    model = unsettled(Reduced(REDUCED["sum"]))
    mask = rows(model, conv=[0, 3])
    found = compact(model, mask, images(1, 2, 5, 5))
    assert torch.allclose(found.module(images(2, 2, 9, 8)), dense(model, mask)(images(2, 2, 9, 8)), rtol=1e-12)
