"""A held mask belongs to its module: removed weights stay 0 whoever trains it, wherever it goes, whatever is loaded."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize, prune

from pruning.mask import Mask
from pruning.masks.holding import MaskNotHeld
from pruning.torch_modules import (
    apply_mask,
    clean_copy,
    held_mask,
    hold_mask,
    is_held,
    prunable,
    reapply_mask,
    release_mask,
)

INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 4, bias=False))


def keep(density: float = 0.4) -> Mask:
    rng = np.random.default_rng(0)
    return Mask({name: rng.random(shape) < density for name, shape in prunable(network()).items()})


def revived(model: nn.Module, mask: Mask) -> int:
    parameters = dict(model.named_parameters())
    return sum(int((parameters[name].detach().numpy()[~held] != 0).sum()) for name, held in mask.items())


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> nn.Module:
    def closure() -> float:
        optimizer.zero_grad()
        loss = (model(INPUTS) - 1).square().mean()
        loss.backward()
        return loss.item()

    for _ in range(steps):
        optimizer.step(closure)
    return model


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), 0.1)


OPTIMIZERS = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
]


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind is not torch.optim.SparseAdam])
def test_every_optimizer_leaves_removed_weights_at_0_after_its_last_step(kind):
    """Those too that write whatever the gradient: Muon makes its step orthogonal."""
    model = hold_mask(network(), keep())
    before = copy.deepcopy(model.state_dict())
    train(model, kind(model.parameters(), lr=0.05))
    assert revived(model, keep()) == 0
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_gradients_set_by_hand_move_nothing_that_is_removed():
    model = hold_mask(network(), keep())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    adam(model).step()
    assert revived(model, keep()) == 0


class TestHoldingAgain:
    def test_a_tighter_mask_takes_the_place_of_the_first(self):
        model = hold_mask(hold_mask(network(), keep(0.9)), keep(0.2))
        train(model, adam(model))
        assert revived(model, keep(0.2)) == 0
        assert held_mask(model) == keep(0.2)

    def test_a_looser_one_does_too(self):
        layer = hold_mask(nn.Linear(2, 1, bias=False), Mask({"weight": [[1, 0]]}))
        hold_mask(layer, Mask({"weight": [[1, 1]]}))
        layer(torch.ones(1, 2)).sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[1.0, 1.0]]

    def test_tensors_that_it_does_not_name_keep_theirs(self):
        first = keep()
        model = hold_mask(hold_mask(network(), first), Mask({"0.weight": first["0.weight"] & False}))
        train(model, adam(model))
        assert revived(model, first) == 0
        assert not model.get_parameter("0.weight").any()

    def test_released_weights_learn(self):
        model = release_mask(hold_mask(network(), keep()))
        assert held_mask(model) is None and not any(map(is_held, model.parameters()))
        train(model, adam(model))
        assert revived(model, keep()) > 0


def test_a_part_that_was_frozen_is_held_when_it_is_not_any_more():
    model = network()
    model[0].requires_grad_(False)
    hold_mask(model, keep())
    assert not model[0].weight.requires_grad
    train(model.requires_grad_(True), adam(model))
    assert revived(model, keep()) == 0


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assigned(model: nn.Module) -> nn.Module:
    model.load_state_dict(network().state_dict(), assign=True)
    return model


def replaced(model: nn.Module) -> nn.Module:
    model.get_submodule("0").weight = nn.Parameter(torch.ones(8, 6))
    return model


def overwritten(model: nn.Module) -> nn.Module:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return model.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize(
    "carry",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        saved,
        assigned,
        replaced,
        overwritten,
        lambda model: model.double().float(),
        lambda model: nn.Sequential(*copy.deepcopy(model).children()),
    ],
    ids=["deepcopy", "pickle", "torch.save", "assign", "new parameter", "overwritten", "to", "its layers"],
)
def test_the_mask_goes_where_the_module_goes(carry: Callable[[nn.Module], nn.Module]):
    model = carry(hold_mask(network(), keep()))
    train(model, adam(model))
    assert revived(model, keep()) == 0


def test_a_pickle_is_held_before_it_has_run_once():
    model = pickle.loads(pickle.dumps(hold_mask(network(), keep())))
    assert all(map(is_held, model.parameters()))
    assert held_mask(model) == keep()


def test_what_is_loaded_is_masked_at_once():
    model = hold_mask(network(), keep())
    model.load_state_dict(network().state_dict())
    assert revived(model, keep()) == 0


@pytest.mark.parametrize("gradients", [True, False])
def test_a_pass_masks_what_was_written_by_hand(gradients):
    model = hold_mask(network(), keep())
    model(INPUTS)
    with torch.no_grad():
        model.get_parameter("0.weight").add_(1)
    with torch.set_grad_enabled(gradients):
        outputs = model(INPUTS)
    assert torch.equal(outputs, apply_mask(copy.deepcopy(model), keep()).forward(INPUTS))
    model.get_parameter("0.weight").data += 1  # leaves no trace in the version
    assert revived(reapply_mask(model), keep()) == 0


def test_two_passes_before_one_backward():
    model = hold_mask(network(), keep())
    (model(INPUTS) + model(2 * INPUTS)).sum().backward()


def test_functional_calls_see_the_tensors_that_they_are_given():
    model = hold_mask(network(), keep())
    given = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    functional_call(model, given, (INPUTS,))
    assert all((value == 1).all() for value in given.values())


def test_a_compiled_module_holds_it_in_one_graph():
    model = hold_mask(network(), keep())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    train(compiled, torch.optim.Muon(model.parameters(), 0.1))  # pyright: ignore[reportArgumentType]
    assert revived(model, keep()) == 0


def test_a_parametrization_keeps_the_mask_and_a_tensor_that_is_gone_is_told():
    model = hold_mask(network(), keep())
    parametrize.register_parametrization(model[0], "weight", nn.Identity())
    model(INPUTS)  # the same parameter, by another name
    parametrize.remove_parametrizations(model[0], "weight")
    del model[0].weight
    with pytest.warns(MaskNotHeld, match="mask of 'weight' in .*Linear holds no more"):
        reapply_mask(model)


def test_a_copy_for_training_is_plain_and_says_what_was_held():
    model = hold_mask(network(), keep())
    prune.custom_from_mask(model[0], "weight", torch.tensor([[1.0] * 5 + [0.0]] * 8))
    plain, mask = clean_copy(model)
    assert mask is not None and mask["2.weight"].tolist() == keep()["2.weight"].tolist()
    assert not mask["0.weight"][:, 5].any() and (mask["0.weight"][:, :5] == keep()["0.weight"][:, :5]).all()
    assert held_mask(plain) is None and not plain._forward_pre_hooks
    assert is_held(model.get_parameter("2.weight"))
