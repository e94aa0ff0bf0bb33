"""One operation of PyTorch, as a function of curves where it works element by element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from pruning.uses.flows.flow import Curve, Signal
from pruning.uses.flows.recognition import GRID
from pruning.uses.places import base_name

# Functions element by element that torch does not mark as such.
_POINTWISE = frozenset({"hardswish", "log_sigmoid_forward", "_prelu_kernel", "prelu", "where", "masked_fill"})
_SLOPES = frozenset({"_prelu_kernel", "prelu"})  # a function whose slope is trained: that with which it begins


@dataclass(frozen=True, eq=False)
class Call:
    """One operation, before it runs.

    Attributes:
        func: of `torch.ops.aten`.
        args: its positional arguments.
        kwargs: its keyword arguments.
        given: the signals of its tensors, by their identity.
    """

    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    given: Mapping[int, Signal]

    @property
    def name(self) -> str:
        """The operation's name, the same for the one that writes in place."""
        return base_name(self.func)

    @property
    def pointwise(self) -> bool:
        """Whether it works element by element."""
        return torch.Tag.pointwise in self.func.tags or self.name in _POINTWISE

    @property
    def signals(self) -> list[Signal]:
        """Those of its arguments, in their order."""
        return [self.given[id(each)] for each in tensors_of((self.args, self.kwargs)) if id(each) in self.given]

    def signal(self, place: int) -> Signal | None:
        """Return the signal of a positional argument."""
        return self.given.get(id(self.args[place])) if place < len(self.args) else None

    def numbers(self) -> Any:
        """Return the arguments with a number for each tensor that is one all over; None where another has several.

        What is trained does not stay a number: a bias shifts and a scale scales, whatever they begin with.
        """
        several, slopes = bool(tensors_of(self.kwargs)), self.name in _SLOPES

        def number(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal several
            if id(tensor) in self.given:
                return tensor
            flat = tensor.detach().reshape(-1)
            several |= not len(flat) or not bool((flat == flat[0]).all()) or (tensor.requires_grad and not slopes)
            if several:
                return tensor
            return flat[0].cpu().double() if tensor.is_floating_point() else flat[0].cpu()

        made = tree_map_only(torch.Tensor, number, self.args)
        return None if several else made

    def evaluated(self, numbers: Any) -> Curve:
        """Return the result where every signal is its curve."""

        def curve(tensor: torch.Tensor) -> torch.Tensor:
            known = self.given.get(id(tensor))
            return tensor if known is None else torch.from_numpy(np.array(known.curve))

        with torch.no_grad():
            made = self.func(*tree_map_only(torch.Tensor, curve, numbers), **self.kwargs)
        made = made if isinstance(made, torch.Tensor) else made[0]
        if made.shape != GRID.shape:
            raise ValueError("not element by element")
        return made.numpy()


def tensors_of(tree: Any) -> list[torch.Tensor]:
    """Return the tensors of a tree.

    >>> len(tensors_of({"a": [torch.ones(1), 2]}))
    1
    """
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
