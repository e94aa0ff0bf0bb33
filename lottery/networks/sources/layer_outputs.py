"""What the layers of a network give out for a batch, before their activations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pruning.starts.torch_tensors import Owned

_LAST_UNITS = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@dataclass(eq=False)
class Seen:
    """What was given out, by the name of one weight of each layer, in the order of the pass.

    Attributes:
        values: [examples, ...].
        axes: the axis of the units.
    """

    values: dict[str, torch.Tensor] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def noted(owned: Sequence[Owned]) -> Iterator[Seen]:
    """Note what the layers of these weights give out in the first call of each.

    Layers whose kind is not known give out nothing that is known to be theirs.

    >>> from pruning.starts.torch_tensors import torch_tensors
    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> with noted(torch_tensors(network, {})) as seen:
    ...     _ = network(torch.ones(5, 3))
    >>> {name: tuple(values.shape) for name, values in seen.values.items()}
    {'0.weight': (5, 2)}
    """
    seen = Seen()
    layers = {id(each.layer): each for each in reversed(owned) if each.known}
    hooks = [each.layer.register_forward_hook(_noting(each, seen)) for each in layers.values()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _noting(owned: Owned, seen: Seen) -> Callable[..., Any]:
    def note(module: nn.Module, arguments: Any, output: Any) -> Any:
        del arguments
        first = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)), None)
        name = owned.tensor.name
        if first is None or name in seen.values or not first.is_floating_point():
            return output
        if torch.is_grad_enabled() and not first.requires_grad:
            first.requires_grad_()
        seen.values[name] = first
        seen.axes[name] = first.ndim - 1 if isinstance(module, _LAST_UNITS) else 1
        # an activation in place would overwrite what is noted
        return first.clone() if output is first else output

    return note
