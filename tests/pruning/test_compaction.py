"""Compaction of networks of linear layers: what goes, what is folded, and what has to stay."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from pruning.compaction import LayerWidths, compact
from pruning.errors import BadValue, MaskMismatch
from pruning.mask import Mask
from tests.pruning.compaction_helpers import assert_exact, dense, holed, images, unsettled, widths


def mlp(*layers: int, activation: Callable[[], nn.Module] = nn.ReLU) -> Any:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(layers):
        parts += [nn.Linear(inputs, outputs), activation()]
    return unsettled(nn.Sequential(*parts[:-1]))


HAND_MADE = Mask(
    {
        # unit 1 sees nothing, unit 3 is seen by nobody
        "0.weight": [[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]],
        # unit 1 sees the constant unit only, and is constant itself
        "2.weight": [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]],
        "4.weight": [[1, 1, 0], [1, 0, 0]],
    }
)


def test_a_network_shrinks_to_what_matters():
    found = assert_exact(mlp(3, 4, 3, 2), HAND_MADE, lambda n: images(n, 3))
    # of the last hidden layer only unit 0 is both seen and not constant; it sees unit 0 of the first
    assert found.layers == (
        LayerWidths("0", 3, 4, 3, 1),
        LayerWidths("2", 4, 3, 1, 1),
        LayerWidths("4", 3, 2, 1, 2),
    )
    assert {name: keep.tolist() for name, keep in found.mask.items()} == {
        "0.weight": [[True, True, False]],
        "2.weight": [[True]],
        "4.weight": [[True], [True]],
    }
    assert found.opaque == {} and found.folded == {}


@pytest.mark.parametrize(
    "activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.Softplus, nn.PReLU, nn.Dropout, nn.Threshold]
)
def test_constants_go_through_activations(activation):
    make = (lambda: nn.Threshold(0.3, 7.0)) if activation is nn.Threshold else activation
    model = mlp(3, 4, 3, 2, activation=make)
    assert widths(assert_exact(model, HAND_MADE, lambda n: images(n, 3))) == {"0": (3, 1), "2": (1, 1), "4": (1, 2)}


def test_a_sigmoid_of_nothing_is_a_half():
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Sigmoid(), nn.Linear(2, 1, bias=False))
    model = unsettled(model)
    nn.init.constant_(model[2].weight, 3.0)
    found = assert_exact(model, Mask({"0.weight": [[1], [0]]}), lambda n: images(n, 1))
    assert found.module.get_parameter("2.bias").tolist() == [1.5]
    assert widths(found) == {"0": (1, 1), "2": (1, 1)}


def test_slopes_of_their_own_go_with_their_units():
    model = mlp(3, 4, 3, 2, activation=nn.PReLU)
    model[1] = nn.PReLU(4).double()
    nn.init.uniform_(model[1].weight)
    found = assert_exact(model, HAND_MADE, lambda n: images(n, 3))
    assert found.module.get_parameter("1.weight").shape == (1,)


def test_a_kept_weight_that_is_zero_is_kept():
    model = mlp(3, 4, 3, 2)
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].weight[2] = 0.0
    found = assert_exact(model, HAND_MADE, lambda n: images(n, 3))
    assert found.mask["0.weight"].tolist() == [[True, True, False]]
    assert widths(found)["0"] == (3, 1)


def test_a_removed_weight_goes_whatever_its_value():
    model = mlp(3, 4, 3, 2)
    assert model[0].weight.detach().all()
    assert compact(model, HAND_MADE, images(1, 3)).mask.kept < HAND_MADE.kept


def test_all_that_is_kept_stays_without_removed_weights():
    model = mlp(4, 5, 3)
    found = assert_exact(model, Mask.dense({"0.weight": (5, 4), "2.weight": (3, 5)}), lambda n: images(n, 4))
    assert widths(found) == {"0": (4, 5), "2": (5, 3)}
    assert found.mask == Mask.dense({"0.weight": (5, 4), "2.weight": (3, 5)})


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_an_empty_layer_leaves_its_bias(layer):
    model = mlp(5, 4, 6, 3)
    shapes = {name: tuple(model.get_parameter(f"{name}.weight").shape) for name in ("0", "2", "4")}
    mask = Mask({f"{name}.weight": np.full(shape, name != layer) for name, shape in shapes.items()})
    found = assert_exact(model, mask, lambda n: images(n, 5))
    assert found.mask.kept == 0
    assert torch.allclose(found.module(images(1, 5)), dense(model, mask)(images(1, 5)))


def test_everything_removed_is_a_constant():
    model = mlp(5, 4, 3)
    mask = Mask({"0.weight": np.zeros((4, 5)), "2.weight": np.zeros((3, 4))})
    assert widths(assert_exact(model, mask, lambda n: images(n, 5)))["2"] == (1, 3)


def test_tensors_that_the_mask_lacks_are_dense():
    model = mlp(5, 4, 6, 3)
    mask = Mask({"2.weight": holed(model)["2.weight"]})
    assert_exact(model, mask, lambda n: images(n, 5))


def test_dead_inputs_are_taken_out_where_that_pays():
    model = mlp(200, 100, 2)
    keep = np.ones((100, 200), bool)
    keep[:, 20:] = False
    found = assert_exact(model, Mask({"0.weight": keep}), lambda n: images(n, 200))
    assert widths(found)["0"] == (20, 100)
    few = keep.copy()
    few[:] = True
    few[:, 0] = False
    assert widths(assert_exact(model, Mask({"0.weight": few}), lambda n: images(n, 200)))["0"] == (200, 100)


def test_float32_agrees_to_five_digits():
    model = mlp(30, 40, 50, 3).float()
    found = assert_exact(model, holed(model), lambda n: images(n, 30).float(), tolerance=1e-5)
    assert {value.dtype for value in found.module.parameters()} == {torch.float32}


def test_axes_before_the_features_are_positions():
    model = mlp(6, 7, 8, 3)
    assert_exact(model, holed(model), lambda n: images(n, 4, 6))


def test_layer_norm_sees_every_unit():
    model = mlp(6, 7, 8, 3)
    model[1] = nn.Sequential(nn.LayerNorm(7), nn.ReLU()).double()
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert widths(found)["0"] == (6, 7) and found.opaque == {}
    assert widths(found)["2"][1] < 8


@pytest.mark.parametrize("layer", [nn.Softmax(1), nn.GroupNorm(2, 8), nn.RMSNorm(8), nn.Softmin(1)])
def test_what_mixes_units_reads_them_all(layer):
    model = mlp(6, 8, 8, 3)
    model[1] = layer.double()
    assert widths(assert_exact(model, holed(model), lambda n: images(n, 6)))["0"] == (6, 8)


class Calls(nn.Module):
    """Functions, methods and operators in the place of modules."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 4)
        self.scale = nn.Parameter(torch.rand(9))

    def forward(self, x):
        a = F.relu(self.first(x), inplace=True)
        b = torch.tanh(self.second(a)).mul(2) + a / 3 - 1
        c = (2 - b * self.scale).clamp(-3, 3)
        return F.dropout(self.third(torch.maximum(c, b).reshape(x.shape[0], -1)), training=self.training)


def test_functions_are_followed_like_modules():
    model = unsettled(Calls())
    mask = holed(model, seed=3)
    found = assert_exact(model, mask, lambda n: images(n, 6))
    assert widths(found)["second"][1] < 9 and widths(found)["first"][1] < 9


class Broadcast(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(6, 9), nn.Linear(6, 1), nn.Linear(9, 4)

    def forward(self, x):
        return self.last(self.first(x) * torch.sigmoid(self.gate(x)))


def test_one_unit_for_all_is_read_by_all():
    model = unsettled(Broadcast())
    assert_exact(model, holed(model), lambda n: images(n, 6))
    assert_exact(model, Mask({"gate.weight": np.zeros((1, 6))}), lambda n: images(n, 6))


class Stream(nn.Module):
    """Units of the input stay in a sum although nobody reads some of them."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.last(x + torch.relu(self.inner(x)))


def test_inputs_that_a_sum_does_not_need_are_taken_out():
    model = unsettled(Stream())
    mask = Mask({"last.weight": [[0, 1, 0, 1, 0]] * 2})
    assert widths(assert_exact(model, mask, lambda n: images(n, 5))) == {"inner": (5, 2), "last": (2, 2)}


class Infinite(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        stream = self.first(x)
        return self.last(1 / (stream + self.inner(stream).exp()).abs().add(1).log())


def test_units_that_nobody_needs_make_no_infinity():
    model = unsettled(Infinite())
    mask = Mask({"last.weight": [[0, 1, 0, 1]] * 2, "inner.weight": np.eye(4, k=1)})
    assert_exact(model, mask, lambda n: images(n, 3))


class TestMasksOfTorch:
    def test_torch_prune_counts_as_well(self):
        model = mlp(3, 4, 3, 2)
        prune.custom_from_mask(model[0], "weight", torch.tensor(HAND_MADE["0.weight"].tolist()))
        model(images(1, 3))
        rest = Mask({name: keep for name, keep in HAND_MADE.items() if name != "0.weight"})
        found = compact(model, rest, images(2, 3))
        assert widths(found) == {"0": (3, 1), "2": (1, 1), "4": (1, 2)}
        assert prune.is_pruned(model) and not prune.is_pruned(found.module)
        assert torch.allclose(found.module(images(4, 3)), dense(mlp(3, 4, 3, 2), HAND_MADE)(images(4, 3)))

    def test_parametrizations_become_plain(self):
        class Masked(nn.Module):
            def forward(self, X):
                return X * torch.tensor(HAND_MADE["0.weight"].tolist()) * 2

        model = mlp(3, 4, 3, 2)
        parametrize.register_parametrization(model[0], "weight", Masked())
        names = {"0.weight": "0.parametrizations.weight.original"}
        mask = Mask({names.get(name, name): keep for name, keep in HAND_MADE.items()})
        found = assert_exact(model, mask, lambda n: images(n, 3))
        assert widths(found)["0"] == (3, 1) and list(found.mask) == list(HAND_MADE)
        assert parametrize.is_parametrized(model[0])

    def test_weight_norm_is_computed_once(self):
        model = mlp(3, 4, 3, 2)
        nn.utils.parametrizations.weight_norm(model[0])
        rest = Mask({name: keep for name, keep in HAND_MADE.items() if name != "0.weight"})
        found = compact(model, rest, images(2, 3))
        assert isinstance(found.module.get_submodule("0"), nn.Linear)
        assert torch.allclose(found.module(images(4, 3)), dense(model, rest)(images(4, 3)), rtol=1e-12)


def test_metadata_of_the_mask_goes_along():
    found = compact(mlp(3, 4, 3, 2), HAND_MADE.with_metadata(level=3), images(1, 3))
    assert found.mask.metadata == {"level": 3}


def test_a_state_dict_goes_round():
    model = mlp(6, 7, 8, 3)
    mask = holed(model)
    one, other = compact(model, mask, images(1, 6)).module, compact(mlp(6, 7, 8, 3), mask, images(3, 6)).module
    with torch.no_grad():
        for value in other.parameters():
            value.zero_()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(images(3, 6)), other(images(3, 6)))


def test_a_training_model_is_compacted_for_inference():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9), nn.Linear(4, 2)).double().train()
    found = assert_exact(model, holed(model), lambda n: images(n, 3))
    assert model.training and not found.module.training


def test_a_mask_of_another_model_is_an_error():
    with pytest.raises(MaskMismatch, match=r"closest: 0\.weight"):
        compact(mlp(3, 4, 2), Mask({"0.wieght": np.ones((4, 3))}), images(1, 3))


def test_an_example_of_another_shape_is_an_error():
    with pytest.raises(BadValue, match="the example does not go through Sequential: RuntimeError"):
        compact(mlp(3, 4, 3, 2), HAND_MADE, images(1, 5))
