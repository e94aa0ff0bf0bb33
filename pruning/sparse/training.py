"""What trains: the caller's architecture, with sparse layers wherever a step with them is faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning.copying import copy_module
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing import step
from pruning.sparse.replacing import replace_layers
from pruning.sparse.timing import fastest
from pruning.structures import tensors_in


@dataclass(frozen=True)
class Trainable:
    """A network that trains.

    Attributes:
        network: in evaluation mode; its masks are still to be held where layers stayed dense.
        dense_seconds: of a forward and backward pass of the masked dense network; None where nothing was measured.
        sparse_seconds: of `network`, likewise.
    """

    network: nn.Module
    dense_seconds: float | None
    sparse_seconds: float | None


def choose_trainable(dense: nn.Module, mask: Mask, example: Sequence[Any], choosing: Choosing) -> Trainable:
    """Return the faster of a masked network and the same with sparse layers; its parameters are new.

    Args:
        dense: masked, in evaluation mode; not changed.
        mask: fits it.
        example: the arguments of one call.
        choosing: how to choose.
    """
    replaced = replace_layers(copy_module(dense), mask, example, choosing, training=True)
    nothing = not any(layer.choice.backends for layer in replaced.layers)
    if nothing or choosing.backend is not None or choosing.by == "model":
        return Trainable(replaced.network, None, None)
    first = tensors_in(example)[0]
    runs = {"dense": _step(dense, example), "sparse": _step(replaced.network, example)}
    with torch.enable_grad():
        winner, times = fastest(runs, "dense", first.device, 2 * choosing.seconds)
    if winner == "sparse":
        return Trainable(replaced.network, times["dense"], times["sparse"])
    return Trainable(copy_module(dense), times["dense"], times["dense"])


def _step(network: nn.Module, example: Sequence[Any]) -> Callable[[], object]:
    return lambda: step(network, network.parameters(), tuple(example), {}, gradients=True)
