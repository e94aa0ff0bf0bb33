"""Modules of PyTorch that compute something else while they train: dropout, batch norm, whatever asks for the mode.

Their translation to JAX is that of the evaluation mode. To train it would be to train another network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from es.translation.randomness import noisy_layers
from es.translation.refusals import called_in
from lottery.networks.objectives.objective import call
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import state_of, to_numpy
from pruning.copies.copying import copy_module
from pruning.errors import BadValue

# Two ways to compute the same differ by less, as a fraction of the largest value.
CLOSE = 1e-4


def check_modes(model: nn.Module, inputs: Any) -> None:
    """Raise `BadValue` for a module that computes something else in training mode than in evaluation mode.

    Args:
        model: as the caller gave it; a module that is all in evaluation mode is trained in training mode.
        inputs: a batch.

    >>> check_modes(nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.0)), torch.ones(3, 2))
    >>> check_modes(nn.Sequential(nn.Linear(2, 9), nn.Dropout(0.5)), torch.ones(3, 2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.BadValue: 1 (Dropout) computes something else in training mode than in evaluation mode, ...
    """
    training = copy_module(model).cpu()
    if not any(module.training for module in training.modules()):
        training.train()
    noisy = noisy_layers(training, inputs)
    evaluating = copy_module(training).eval()
    before = state_of(training)
    with torch.no_grad(), seeded_everywhere(0):
        outputs = [call(copy, inputs) for copy in (training, evaluating)]
    after = state_of(training)
    written = [name for name, was in before.items() if was.tobytes() != after[name].tobytes()]
    if not noisy and not written and _same(*outputs):
        return
    owner = written[0].rpartition(".")[0] if written else ""
    layer = noisy[0] if noisy else called_in(owner, training.get_submodule(owner))
    raise BadValue(
        f"{layer} computes something else in training mode than in evaluation mode, whose translation to JAX is what "
        "trainer 'optax' trains: use trainer 'gd', or a model without dropout and batch norm"
    )


def _same(one: Any, other: Any) -> bool:
    (mine, form), (yours, wanted) = tree_flatten(one), tree_flatten(other)
    if form != wanted:
        return False
    pairs = zip(mine, yours, strict=True)
    return all(_close(a, b) if isinstance(a, torch.Tensor) else a is b or a == b for a, b in pairs)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    a, b = (to_numpy(tensor).astype(np.complex128) for tensor in (one, other))
    scale = float(np.abs(np.nan_to_num(b)).max(initial=0.0))
    return np.allclose(a, b, rtol=0.0, atol=CLOSE * scale + 1e-12, equal_nan=True)
