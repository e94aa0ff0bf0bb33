"""A PyTorch network at its start, looked at on a few examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves, tree_map

from lottery.networks.example_gradients import differentiable
from lottery.networks.objectives.objective import Objective, call
from lottery.networks.sources.layer_outputs import noted
from lottery.search.probes.synflow import flow
from lottery.state.randomness import seeded_everywhere
from lottery.studies.measures.signal import squared_correlation
from lottery.studies.starting.lens import Array, Lens, Passed, signs
from pruning.copies.copying import copy_module
from pruning.errors import BadValue, LotteryError
from pruning.mask import Mask
from pruning.starts.torch_tensors import torch_tensors
from pruning.torch_modules import apply_mask


@dataclass(frozen=True, eq=False)
class _Network:
    model: nn.Module
    mask: Mask
    inputs: Any
    targets: Any
    objective: Objective | None

    def copy(self) -> nn.Module:
        """Return a copy as it trains, but without dropout."""
        model = apply_mask(copy_module(self.model), self.mask).train()
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.eval()
        return model

    @property
    def is_number(self) -> bool:
        return isinstance(self.inputs, torch.Tensor) and self.inputs.is_floating_point()


def torch_lens(model: nn.Module, mask: Mask, inputs: Any, targets: Any, objective: Objective | None) -> Lens:
    """Return what can be seen of a module.

    Args:
        model: at its start; never changed.
        mask: what is kept.
        inputs: a few examples, as the model takes them.
        targets: their labels; None for none.
        objective: the loss; None for none.
    """
    network = _Network(model, mask, inputs, targets, objective)
    return Lens(
        layers=lambda: _layers(network),
        jacobian=(lambda count: _jacobian(network, count)) if network.is_number else None,
        example_gradients=lambda count: _example_gradients(network, count),
        gradient_norm=None if objective is None or targets is None else lambda: _gradient_norm(network),
        answers=lambda value: _answers(network, value),
        paths=lambda: _paths(network),
        input_correlation=squared_correlation(inputs.numpy()) if network.is_number else math.nan,
    )


def _layers(network: _Network) -> dict[str, Passed]:
    model = network.copy()
    with seeded_everywhere(0), differentiable(model), noted(torch_tensors(model, dict(network.mask))) as seen:
        outputs = _outputs(call(model, network.inputs))
        total = (outputs * torch.from_numpy(signs(tuple(outputs.shape))).to(outputs)).sum()
        found = torch.autograd.grad(total, list(seen.values.values()), allow_unused=True, materialize_grads=True)
    return {
        name: Passed(values.detach().numpy(), gradient.numpy(), seen.axes[name])
        for (name, values), gradient in zip(seen.values.items(), found, strict=True)
    }


def _jacobian(network: _Network, count: int) -> Array:
    """Return the derivatives of each output of some examples at their inputs; of 64 random sums where it has more."""
    model = network.copy().eval()
    inputs = network.inputs[:count].clone().requires_grad_()
    with seeded_everywhere(0), differentiable(model):
        outputs = _outputs(call(model, inputs)).reshape(count, -1)
        width = outputs.shape[1]
        asked = torch.eye(width) if width <= 64 else _sums(width)
        rows = [
            torch.autograd.grad((outputs * each.to(outputs)).sum(), inputs, retain_graph=True)[0].reshape(count, -1)
            for each in asked
        ]
    return torch.stack(rows, 1).detach().numpy()


def _sums(width: int) -> torch.Tensor:
    drawn = np.linalg.qr(np.random.default_rng(0).standard_normal((width, 64)))[0].T
    return torch.from_numpy(np.ascontiguousarray(drawn, np.float32))


def _example_gradients(network: _Network, count: int) -> Array:
    model = network.copy().eval()
    weights = [model.get_parameter(name) for name in network.mask]
    keeps = [torch.tensor(keep) for keep in network.mask.values()]
    rows: list[torch.Tensor] = []
    with seeded_everywhere(0), differentiable(model):
        outputs = _outputs(call(model, _first(network.inputs, count)))
        toward = torch.from_numpy(signs(tuple(outputs.shape[1:]))).to(outputs)
        for row in outputs:
            found = torch.autograd.grad(
                (row * toward).sum(), weights, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([g[keep] for g, keep in zip(found, keeps, strict=True)]))
    return torch.stack(rows).numpy()


def _gradient_norm(network: _Network) -> float:
    model = network.copy()
    assert network.objective is not None
    with seeded_everywhere(0), differentiable(model):
        loss = network.objective.private().loss(call(model, network.inputs), network.targets)
        weights = [model.get_parameter(name) for name in network.mask]
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    kept = zip(found, network.mask.values(), strict=True)
    return math.sqrt(sum(float(g[torch.tensor(keep)].square().sum()) for g, keep in kept))


def _answers(network: _Network, value: float) -> Array:
    model = network.copy()
    with torch.no_grad(), seeded_everywhere(0):
        for name, parameter in model.named_parameters():
            if "bias" in name.rpartition(".")[2]:
                parameter.zero_()
        for name in network.mask:
            model.get_parameter(name).fill_(value)
        apply_mask(model, network.mask)
        return _outputs(call(model, network.inputs)).double().numpy()


def _paths(network: _Network) -> tuple[float, float] | None:
    """Return log10 of the number of paths and of the flow of absolute weights, near 0 and linear."""
    if not network.is_number:
        return None
    shape = tuple(network.inputs.shape[1:])
    try:
        found = flow(network.copy(), shape)
        ones = network.copy()
        with torch.no_grad():
            for name in network.mask:
                ones.get_parameter(name).fill_(1)
        counted = flow(apply_mask(ones, network.mask), shape)
    except LotteryError:
        return None
    return _log10(counted), _log10(found)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def _outputs(outputs: Any) -> torch.Tensor:
    found = next((leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)), None)
    if found is None or not found.is_floating_point():
        raise BadValue("the network gives out no tensor of numbers: a signal cannot be followed through it")
    return found


def _first(inputs: Any, count: int) -> Any:
    return tree_map(lambda leaf: leaf[:count] if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf, inputs)
