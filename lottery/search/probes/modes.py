"""The mode in which a probe looks at a network.

- `gradients`, `hessian_gradients`, `hessian_diagonal`, `input_norms`: as in a step of training on the batch, so that
  batch norms use its statistics; but noise (dropout) is off.
- `fisher`: evaluation, an example at a time; batch norms hold the statistics of the whole batch.
- `synflow`: evaluation, on absolute weights; no data.
- `edge-popup`, `continuous-sparsification`: they train, in the trainer's own modes.

A layer that the trainer keeps in evaluation mode (a frozen batch norm) is in evaluation mode in all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lottery.networks.objectives.objective import call


def without_noise(model: nn.Module) -> nn.Module:
    """Keep a network's present modes, except in modules that draw random numbers; in place.

    What a step of training sees, on average: a unit that dropout happens to remove would seem to be worth nothing.
    Off are modules that hold neither tensors nor modules (every kind of dropout and of added noise is one), and the
    dropout that recurrent layers and attention do themselves. What a `forward` draws itself stays, seeded.

    >>> model = without_noise(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)))
    >>> [module.training for module in model]
    [True, False]
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0
        elif not any(True for _ in module.children()) and not any(True for _ in _tensors(module)):
            module.eval()
    return model


def with_statistics_of(model: nn.Module, inputs: Any) -> nn.Module:
    """Put a network into evaluation mode, with batch norms that hold the statistics of these inputs; in place.

    A batch norm that trains uses the batch's own statistics, which a single example does not have; its running ones may
    be those of a few steps, or of other weights. One that is in evaluation mode already keeps its own.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches since: over this one
    if norms:
        with torch.no_grad():
            call(without_noise(model), inputs)
    return model.eval()


def _tensors(module: nn.Module) -> Any:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
