"""How the network of a search uses its tensors: a few training examples go through it once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lottery.data.batches import training_batches
from lottery.data.fitness import Fitness
from lottery.data.parts import Parts
from lottery.data.unseen import Unseen
from lottery.networks.objectives.objective import GivenLoss, GivenMetric, objective_for, own
from lottery.networks.sources.source import ModelSource, Source
from lottery.networks.uses import torch_uses
from lottery.state.tensors import float_type
from pruning.torch_modules import is_number
from pruning.uses.torch_axes import torch_axes
from pruning.uses.uses import Uses

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes

FEW = 8


def follow(
    source: Source,
    parts: Parts | Episodes | Fitness | Unseen,
    seed: int,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
) -> Uses:
    """Return how a network uses its tensors on a few training examples; `reason` says why where that is not found out.

    Args:
        source: where the network comes from.
        parts: the data, or an environment.
        seed: the seed of the network.
        loss: the caller's own loss, or None.
        metric: the caller's own metric, or None.
    """
    if isinstance(source, ModelSource):
        model = source.build(seed)
        if isinstance(parts, Unseen):
            return Uses(torch_axes(model), reason="no data was given")
        inputs, targets = batch_of(parts, seed, float_type(model))
        objective = objective_for(targets, own(loss) if loss else None, metric) if targets is not None else None
        return torch_uses(model, matrices(model), inputs, objective.loss if objective else None, targets)
    from lottery.networks.sources.jax import JaxSource

    if not isinstance(source, JaxSource):
        return Uses(reason=f"{type(source).__name__} is neither a PyTorch module nor a JAX model")
    if isinstance(parts, Fitness):
        return source.judged_uses(seed, parts.of)
    return source.uses(seed, batch_of(parts, seed, torch.float32)[0])


def matrices(model: nn.Module) -> list[str]:
    """Return the names of the tensors of a network that have two axes or more.

    >>> matrices(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
    ['0.weight']
    """
    return [name for name, parameter in model.named_parameters() if parameter.ndim > 1 and is_number(parameter)]


def batch_of(
    parts: Parts | Episodes | Fitness | Unseen, seed: int, dtype: torch.dtype, count: int = FEW
) -> tuple[Any, Any]:
    """Return a few examples on the host; observations of an environment are zeros, and have no targets.

    Args:
        parts: the data, or an environment.
        seed: which examples.
        dtype: of their floating-point numbers.
        count: how many; a loader brings its own number.
    """
    if not isinstance(parts, Parts):
        return torch.zeros(count, *parts.input_shape), None
    return next(training_batches(parts.with_floats(dtype).train, count, seed=seed, start=0, stop=1))
