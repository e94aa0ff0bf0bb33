"""Floating-point operations of a forward pass, counted where that can be done.

A count decides how fast something is done (threads, stacking), never whether: a network that cannot be counted is
trained all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lottery.networks.objectives.objective import call
from lottery.state.randomness import seeded_everywhere
from pruning.copies.copying import copy_module
from pruning.uses.operations import Operations


def forward_flops(model: nn.Module, inputs: Any) -> int | None:
    """Return how many operations of products one forward pass takes; None where that cannot be counted.

    A copy of the model is called once, in the modes in which the model is and with gradients, as it is in training. The
    formulas are those of `torch.utils.flop_counter`; backward passes inside the forward pass are counted too.

    >>> forward_flops(nn.Linear(3, 2), torch.ones(4, 3))
    48
    """
    counting = _Counting()
    try:
        with seeded_everywhere(0), torch.enable_grad(), counting:
            call(copy_module(model), inputs)
    except (Exception, SystemExit):  # a mode that listens to every operation is more than some networks stand
        return None
    return counting.total


class _Counting(Operations):
    """Adds up the operations.

    `FlopCounterMode` also says which module took them, for which it hooks into every module's backward pass: networks
    that take gradients in their forward pass, or whose attention has a parameter for a query, do not stand that.
    """

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self.total = 0
        self._formulas = flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result
