"""Networks and data that look like a chain of layers and are none, or are one that lies in memory in another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_full_backward_pre_hook

from lottery.trainers.gd.chain import effects
from lottery.trainers.gd.chain.architecture import NoChain, architecture_of
from tests.lottery.helpers import blobs
from tests.lottery.test_compiled_steps import DENSE, SPARSE, TABLE, assert_same, compiled, job, mlp, ready, trained


def two_layers(forward: Callable[..., Any]) -> Any:
    """Return layers of 6, 6 and 3 units, called in this way."""
    net: Any = type("Net", (nn.Module,), {"forward": forward})()
    net.first, net.second, net.seen, net.kind = nn.Linear(6, 6), nn.Linear(6, 3), [], 0
    return net


def plain(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.second(F.relu(self.first(x)))


def twice(self: Any, x: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        x = F.relu(self.first(x))
    return self.second(x)


def appends(self: Any, x: torch.Tensor) -> torch.Tensor:
    _ = self.seen.append(1)
    return self.second(self.first(x))


def extends(self: Any, x: torch.Tensor) -> torch.Tensor:
    seen = self.seen
    seen += [1]
    return self.second(self.first(x))


def matches(self: Any, x: torch.Tensor) -> torch.Tensor:
    match self.kind:
        case 0:
            x = self.first(x)
        case _:
            x = F.relu(self.first(x))
    return self.second(x)


def chooses(self: Any, x: torch.Tensor) -> torch.Tensor:
    activation = (self.kind and F.relu) or torch.tanh
    return self.second(activation(self.first(x)))


def test_the_plain_network_of_these_tests_is_a_chain():
    assert isinstance(architecture_of(two_layers(plain)), tuple)


@pytest.mark.parametrize("forward", [appends, extends, matches, chooses, torch.autocast("cpu", torch.bfloat16)(plain)])
def test_a_forward_pass_that_does_more_or_branches(forward):
    found = architecture_of(two_layers(forward))
    assert isinstance(found, NoChain)
    assert "may do more" in found.reason or "in a way of its own" in found.reason


def test_a_layer_that_is_called_twice_has_one_gradient_of_two_parts():
    found = architecture_of(two_layers(twice))
    assert isinstance(found, NoChain)
    assert found.reason == "layers share a weight"


def test_a_module_that_may_write_its_weights_where_its_mode_changes():
    class Clamped(nn.Sequential):
        def train(self, mode: bool = True) -> Any:
            with torch.no_grad():
                next(self.parameters()).clamp_(-0.1, 0.1)
            return super().train(mode)

    assert isinstance(architecture_of(Clamped(*mlp())), NoChain)


def test_hooks_on_all_modules_before_a_backward_pass():
    hook = register_module_full_backward_pre_hook(lambda *_: None)
    try:
        assert isinstance(architecture_of(mlp()), NoChain)
    finally:
        hook.remove()


def test_tensors_of_another_shape_than_their_layer_states():
    """Nothing reads beyond their ends: a bias of one number is added to all, a smaller weight may stand in a layer."""
    models: list[Any] = [mlp(), mlp(), nn.Sequential(nn.Linear(6, 3))]
    one, smaller, nothing = models
    one[0].bias = nn.Parameter(torch.zeros(1))
    smaller[0].weight, smaller[0].bias = nn.Parameter(torch.zeros(30, 6)), nn.Parameter(torch.zeros(30))
    smaller[2].weight = nn.Parameter(torch.zeros(20, 30))
    nothing[0].weight, nothing[0].in_features = nn.Parameter(torch.zeros(3, 0)), 0
    for model in models:
        found = architecture_of(model)
        assert isinstance(found, NoChain)
        assert "of another shape" in found.reason


def test_packages_are_others_even_within_pythons_own_folder(monkeypatch):
    monkeypatch.setattr(effects, "_PYTHON", "/usr/lib/python3/")
    assert effects.is_pythons("/usr/lib/python3/random.py")
    assert not effects.is_pythons("/usr/lib/python3/site-packages/networks/mlp.py")
    assert not effects.is_pythons(f"{effects._PYTORCH.rstrip('/')}vision/models.py")


@pytest.mark.parametrize("rates", [SPARSE, DENSE], ids=["sparse", "dense"])
def test_a_weight_whose_memory_lies_in_another_order(rates):
    def model(seed: int = 0) -> nn.Module:
        net: Any = mlp(seed)
        net[0].weight = nn.Parameter(net[0].weight.detach().t().contiguous().t())
        return net

    trainer = compiled(rates, model, optimizer="sgd", lr=0.05)
    work = job(model(1))
    assert_same(trained(trainer, work), trained(replace(trainer, chain=None), work))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_integers_as_inputs_of_another_part_are_not_read_as_floats(part):
    x, y = blobs(30, seed=1)
    assert ready(data=replace(TABLE, **{part: ((3 * x).astype(np.int64), y)})).chain is None
