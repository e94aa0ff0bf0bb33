"""A search's loss and examples in JAX, for the trainers that compute there."""

from __future__ import annotations

import math
from typing import Any

import jax
import torch.nn.functional as F

from es.network import Network
from es.objectives import binary_cross_entropy, cross_entropy, squared_error
from es.translation.arrays import batch_to_jax
from es.translation.fixed import released
from es.translation.functions import torch_batch_function
from lottery.data.part import Part, Tensors
from lottery.networks.objectives import objective as torch_objective
from lottery.networks.sources.jax import JaxSource
from lottery.trainers import Ask
from pruning.calls.users_code import users_code
from pruning.errors import DataError

# The default losses of the trainer in PyTorch, and the same in JAX.
_OURS = {
    F.cross_entropy: cross_entropy,
    torch_objective.binary_loss: binary_cross_entropy,
    torch_objective.squared_error: squared_error,
}


def loss_in_jax(ask: Ask, function: Any, outputs: Any, targets: Any, network: Network) -> Any:
    """Return a loss as a JAX function: ours by name, a JAX model's as it is, a torch one translated.

    Args:
        ask: whose model decides in which framework the loss is written.
        function: the loss.
        outputs: those of the network for a batch, or their shapes.
        targets: the batch's own.
        network: the network whose outputs they are.

    Raises:
        DataError: it cannot be called so, or does not return one number.
    """
    with users_code("the loss on a batch of this data", DataError):
        loss = _translated(ask, function, outputs, targets, network)
        shape: tuple[int, ...] = jax.eval_shape(loss, outputs, targets).shape
    if math.prod(shape) != 1:
        raise DataError(f"the loss must return one number for a batch, not shape {shape}")
    return loss


def examples_in_jax(part: Part) -> tuple[Any, Any]:
    """Return a whole part as arrays on the device.

    >>> import torch
    >>> examples_in_jax(Tensors(torch.ones(2, 3), torch.tensor([0, 1])))[0].shape
    (2, 3)
    """
    assert isinstance(part, Tensors)
    return batch_to_jax((part.inputs, part.targets))


def _translated(ask: Ask, function: Any, outputs: Any, targets: Any, network: Network) -> Any:
    ours = next((jax_loss for torch_loss, jax_loss in _OURS.items() if torch_loss is function), None)
    if ours is not None:
        return ours
    if isinstance(ask.source, JaxSource):
        return lambda outputs, targets: function(outputs, released(targets))
    return torch_batch_function(function, outputs, targets, network.restored)
