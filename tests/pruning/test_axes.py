"""The axes of weights: a row for each output, and in a row, tap after tap, what the product sums over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.patterns import get_pattern
from pruning.selection import check_targets, select
from pruning.uses.axes import Axes
from pruning.uses.torch_axes import torch_axes

ROWS = get_pattern("rows")
TWO_OF_FOUR = get_pattern("n-m", {"n": 2, "m": 4})

# A layer, an input of one channel or feature more than 8, and where its outputs lie.
LAYERS = {
    "linear": (nn.Linear(8, 6), (2, 8), -1),
    "conv": (nn.Conv2d(8, 6, 3), (2, 8, 5, 5), 1),
    "grouped conv": (nn.Conv1d(8, 6, 3, groups=2), (2, 8, 5), 1),
    "transposed conv": (nn.ConvTranspose2d(8, 6, 3), (2, 8, 5, 5), 1),
    "grouped transposed conv": (nn.ConvTranspose1d(8, 6, 3, groups=2), (2, 8, 5), 1),
    "bilinear": (nn.Bilinear(8, 8, 6), (2, 8), -1),
}


@pytest.mark.parametrize("kind", list(LAYERS))
def test_a_removed_row_is_an_output_that_is_always_0(kind):
    layer, shape, channel = LAYERS[kind]
    axes = torch_axes(layer)["weight"]
    weight = layer.get_parameter("weight")
    for row in range(6):
        keep = np.ones(axes.matrix_shape, bool)
        keep[row] = False
        removed = torch.from_numpy(~axes.tensor(keep, tuple(weight.shape)))
        with torch.no_grad():
            layer.get_parameter("bias").zero_()
            whole = weight.clone()
            weight.masked_fill_(removed, 0)
            given = torch.randn(shape)
            outputs = layer(given, given) if kind == "bilinear" else layer(given)
            weight.copy_(whole)
        silent = (outputs.movedim(channel, 0).reshape(6, -1) == 0).all(1)
        assert silent.tolist() == [index == row for index in range(6)]


@pytest.mark.parametrize("kind", ["linear", "conv", "grouped conv", "transposed conv", "grouped transposed conv"])
def test_neighbours_are_inputs_at_one_tap_of_one_output(kind):
    """A group of m is what one output sums over at one position of the kernel."""
    layer, _, _ = LAYERS[kind]
    weight, axes = layer.get_parameter("weight"), torch_axes(layer)["weight"]
    transposed, groups = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d), getattr(layer, "groups", 1)
    places = np.stack(np.meshgrid(*map(np.arange, weight.shape), indexing="ij"), -1)
    into, out = (0, 1) if transposed else (1, 0)
    rows = np.stack([axes.matrix(places[..., axis]) for axis in range(weight.ndim)], -1)
    for group in rows.reshape(-1, axes.input_count, weight.ndim):
        assert len(np.unique(np.delete(group, into, axis=1), axis=0)) == 1
        assert len(np.unique(group[:, into])) == axes.input_count == 8 // groups
        assert len(np.unique(group[:, out])) == 1


def test_a_recurrent_unit_is_its_row_in_every_gate():
    axes = torch_axes(nn.LSTM(5, 3, proj_size=2))
    shown = axes["weight_ih_l0"].matrix(np.arange(12)[:, None].repeat(5, 1))
    assert shown[1].tolist() == [1] * 5 + [4] * 5 + [7] * 5 + [10] * 5
    assert axes["weight_hr_l0"].matrix_shape == (2, 3)
    assert torch_axes(nn.GRUCell(5, 3))["weight_hh"].matrix_shape == (3, 9)


def test_what_is_known_of_no_layer_is_not_guessed():
    module = nn.Module()
    module.own = nn.Parameter(torch.ones(3, 4))
    assert torch_axes(module) == {}


def test_there_and_back_is_the_same():
    axes = Axes((2, 4, 3, 5), outputs=(0, 2), inputs=(1,))
    array = np.random.default_rng(0).random((8, 3, 5))
    assert np.array_equal(axes.tensor(axes.matrix(array), (8, 3, 5)), array)


class TestSelection:
    def test_rows_of_a_kernel_that_has_its_outputs_last(self):
        axes = {"kernel": Axes((3, 4), outputs=(1,), inputs=(0,))}
        scores = {"kernel": np.array([[1.0, 9, 2, 3]] * 3)}
        dense = Mask.dense({"kernel": (3, 4)})
        kept = select(scores, dense, 6, 1, ROWS.on(axes))["kernel"]
        assert kept.tolist() == [[False, True, False, True]] * 3
        check_targets([12, 3], dense, 1, ROWS.on(axes))
        with pytest.raises(BadValue, match="less than the 4"):
            check_targets([12, 3], dense, 1, ROWS)

    def test_two_of_four_input_channels_at_every_tap(self):
        axes = torch_axes(nn.Conv2d(8, 4, 3))
        scores = {"weight": np.random.default_rng(0).random((4, 8, 3, 3))}
        kept = select(scores, Mask.dense({"weight": (4, 8, 3, 3)}), 144, 1, TWO_OF_FOUR.on(axes))["weight"]
        assert (kept.reshape(4, 2, 4, 3, 3).sum(2) == 2).all()
        best = np.argsort(scores["weight"].reshape(4, 2, 4, 3, 3), axis=2)[:, :, 2:]
        assert np.take_along_axis(kept.reshape(4, 2, 4, 3, 3), best, 2).all()

    def test_a_group_never_reaches_into_the_next_tap(self):
        axes = torch_axes(nn.Conv1d(2, 4, 4))  # 8 columns, but 2 inputs at each of 4 taps
        with pytest.raises(BadValue, match=r"width of 2 .*2 inputs at each tap.* does not divide by 4"):
            TWO_OF_FOUR.on(axes).tile("weight", (4, 2, 4))
        depthwise = torch_axes(nn.Conv1d(4, 4, 4, groups=4))
        with pytest.raises(BadValue, match="width of 1 "):
            TWO_OF_FOUR.on(depthwise).tile("weight", (4, 1, 4))

    def test_blocks_may_hold_whole_taps(self):
        axes = torch_axes(nn.Conv1d(2, 4, 4))
        assert get_pattern("blocks", {"height": 1, "width": 4}).on(axes).tile("weight", (4, 2, 4)).width == 4

    def test_a_pattern_says_where_it_removes_outputs(self):
        shapes = {"kernel": (3, 4), "vector": (4, 1)}
        assert all(ROWS.removes_outputs(name, shape) for name, shape in shapes.items())
        assert not any(get_pattern("unstructured").removes_outputs(name, shape) for name, shape in shapes.items())
        assert not TWO_OF_FOUR.removes_outputs("kernel", (3, 4))
        assert get_pattern("blocks", {"height": 1, "width": 4}).removes_outputs("kernel", (3, 4))
        assert not get_pattern("blocks", {"height": 1, "width": 2}).removes_outputs("kernel", (3, 4))
