"""Whether a network computes with its own parameters alone: what trains must be what was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pruning.copying import tensors_within
from pruning.errors import BadValue
from pruning.structures import tensors_in


def require_own_parameters(model: nn.Module, outputs: Any) -> None:
    """Raise `BadValue` where outputs were computed with trainable parameters that the model does not hold.

    Training works on copies. A function that refers to the model by a global name, or a class that is defined around
    it, computes with the original all the same: then the copy would be trained in part or not at all.

    Args:
        model: a copy, that made the outputs while gradients were recorded.
        outputs: of any structure.

    >>> layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> require_own_parameters(layer, layer(torch.ones(1, 2)))
    >>> try:
    ...     require_own_parameters(layer, [other(torch.ones(1, 2))])
    ... except BadValue as error:
    ...     print(str(error)[:70])
    Linear computes with 2 trainable parameters that it does not hold (the
    """
    held = {id(tensor) for tensor in tensors_within(model)}
    leaves = {id(leaf): leaf for leaf in _leaves(outputs) if isinstance(leaf, nn.Parameter)}
    foreign = [leaf for key, leaf in leaves.items() if key not in held]
    if foreign:
        raise BadValue(
            f"{type(model).__name__} computes with {len(foreign)} trainable parameters that it does not hold (the "
            f"first has shape {tuple(foreign[0].shape)}). A search trains copies of the model, and this one still "
            "calls the original, or another module, from outside: by a global name, or from a class that is defined "
            "inside a function. Reach every layer through `self` in forward; call requires_grad_(False) on parameters "
            "of other modules that are not trained"
        )


def _leaves(outputs: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in which the graph behind these outputs ends."""
    made = [tensor for tensor in tensors_in(outputs) if tensor.requires_grad]
    yield from (tensor for tensor in made if tensor.is_leaf)
    level: list[Any] = [tensor.grad_fn for tensor in made if tensor.grad_fn is not None]
    seen: set[Any] = set()
    while level:
        node = level.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        level += [following for following, _ in node.next_functions if following is not None]
