"""Torch modules: what is prunable, and what torch's own pruning leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pruning.errors import MaskMismatch, NothingToPrune, UnknownName
from pruning.mask import Mask
from pruning.torch_modules import apply_mask, clean_copy, prunable, unwrap


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.lstm = nn.LSTM(4, 3)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.layer_norm = nn.LayerNorm(4)
        self.decoder = nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.embedding.weight
        self.first = nn.Linear(4, 4)
        self.twin = nn.Linear(4, 4)
        self.twin.weight = self.first.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(4, 4))


def test_weights_of_layers_are_prunable_and_nothing_else():
    assert list(prunable(Everything())) == [
        "conv.weight",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "first.weight",
    ]


def test_patterns_choose_and_skip():
    model = Everything()
    assert list(prunable(model, only=["embedding.*", "scale"])) == ["scale", "embedding.weight"]
    assert "first.weight" not in prunable(model, skip=["first.*", "lstm.*"])
    with pytest.raises(UnknownName, match="closest: conv.weight"):
        prunable(model, skip=["conv.wieght"])
    with pytest.raises(UnknownName, match="matches no tensor"):
        prunable(model, only=["nothing.*"])
    frozen = Everything()
    frozen.first.weight.requires_grad_(False)
    with pytest.raises(UnknownName, match="'first.weight' is frozen"):
        prunable(frozen, only=["first.weight", "scale"])


@pytest.mark.parametrize(
    "model", [nn.BatchNorm1d(3), nn.Sequential(), nn.Embedding(3, 3), nn.Linear(2, 2).requires_grad_(False)]
)
def test_a_model_with_nothing_prunable_is_an_error(model):
    with pytest.raises(NothingToPrune, match="no prunable tensor"):
        prunable(model)


def test_apply_mask_names_what_does_not_fit():
    with pytest.raises(MaskMismatch, match=r"closest: .*weight"):
        apply_mask(nn.Linear(2, 2), Mask({"wieght": [[1, 1], [1, 1]]}))


def test_wrapped_models_are_unwrapped():
    inner = nn.Linear(2, 2)
    assert unwrap(nn.DataParallel(inner)) is inner
    assert unwrap(torch.compile(inner)) is inner  # pyright: ignore[reportArgumentType]
    assert list(prunable(nn.DataParallel(inner))) == ["weight"]


class TestTorchPrune:
    """`torch.nn.utils.prune` state is understood on the way in."""

    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
        prune.random_unstructured(model[0], "weight", amount=2)
        model(torch.ones(1, 3))  # now `weight` is not a leaf, and copy.deepcopy refuses it (pytorch#37322)
        return model

    def test_a_pruned_module_becomes_plain_with_its_mask(self, model):
        plain, mask = clean_copy(model)
        assert sorted(dict(plain.named_parameters())) == ["0.bias", "0.weight", "2.bias", "2.weight"]
        assert mask is not None and mask.counts() == {"0.weight": 4}
        assert torch.equal(plain.get_parameter("0.weight"), model[0].weight)
        copy.deepcopy(plain)

    def test_the_callers_module_stays_as_it_was(self, model):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        clean_copy(model)
        assert list(before) == list(model.state_dict())
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert prune.is_pruned(model)

    def test_a_module_without_hooks_has_no_mask(self):
        assert clean_copy(nn.Linear(2, 2))[1] is None
