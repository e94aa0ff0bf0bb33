"""Rules: what each operation does with channels. One small file for each family, found by itself.

A rule is a function from an `Operation` to a `Carry`, a `Mix`, a `Peek`, or None where the operation, used in this
way, is dense. What no rule knows is dense: layer norm, softmax, attention, recurrent layers, ….
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx.node import map_arg

from pruning.compaction.channels import Behaviour, Channels, Flags, Numbers, unknown_where_infinite
from pruning.compaction.observing import Observed
from pruning.registry import Registry, summary_of


@dataclass(frozen=True)
class Operation:
    """One node of a traced network, as a rule sees it.

    Attributes:
        node: the node.
        module: the module that it calls, or None for a function or a method.
        observed: observations of one run of the example.
        known: channels of the values that have been followed so far.
        kept: the mask, by parameter.
    """

    node: fx.Node
    module: nn.Module | None
    observed: Observed
    known: Mapping[fx.Node, Channels]
    kept: Mapping[torch.Tensor, Flags]

    @property
    def source(self) -> fx.Node | None:
        """The value that comes first among the arguments, or None where that is no tensor."""
        named = self.node.kwargs.get("input")
        first = self.node.args[0] if self.node.args else named
        return first if isinstance(first, fx.Node) and first in self.observed.shapes else None

    @property
    def lone(self) -> tuple[fx.Node, Channels] | None:
        """The first argument with its channels, where it is the only value that is read and its channels are known."""
        source = self.source
        if source is None or source not in self.known or self.node.all_input_nodes != [source]:
            return None
        return source, self.known[source]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the output for the example; None where it is no tensor."""
        return self.observed.shapes.get(self.node)

    def shape_of(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of a value for the example."""
        return self.observed.shapes[node]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or its name."""
        if position < len(self.node.args):
            return self.node.args[position]
        return self.node.kwargs.get(name, default)

    def at(self, constants: Mapping[fx.Node, Numbers], width: int) -> Numbers:
        """Return the result [width] of the operation for these constant values [width], in float64.

        Where one is NaN the result is NaN, whatever the operation makes of NaN.
        """
        unknown = np.zeros(width, bool)
        for values in constants.values():
            unknown |= np.isnan(values)
        tensors = {node: torch.from_numpy(np.where(unknown, 0.0, v))[None] for node, v in constants.items()}
        args = map_arg(self.node.args, tensors.__getitem__)
        kwargs = map_arg(self.node.kwargs, tensors.__getitem__)
        result = self.call(*args, **kwargs)
        return np.where(unknown, np.nan, unknown_where_infinite(result.broadcast_to(1, width)[0].numpy()))

    def call(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the operation on other arguments, in float64 on the CPU."""
        with torch.no_grad():
            if self.module is not None:
                # A copy on the CPU: the module itself may live elsewhere, in another precision.
                return _double(self.module)(*args, **kwargs)
            if self.node.op == "call_method":
                return getattr(args[0], str(self.node.target))(*args[1:], **kwargs)
            assert callable(self.node.target)
            return self.node.target(*args, **kwargs)


RuleFunction = Callable[[Operation], Behaviour | None]


@dataclass(frozen=True)
class Rule:
    """A rule and the operations it is for: module types, functions, or names of tensor methods."""

    operations: tuple[Any, ...]
    function: RuleFunction


RULES: Registry[Rule] = Registry("compaction rule", "pruning.compaction.rules")


def rule(*operations: Any) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for these module types (exactly, no subclasses), functions and names of tensor methods."""

    def register(function: RuleFunction) -> RuleFunction:
        name = getattr(function, "__name__", str(function))
        RULES.add(name, Rule(operations, function), summary_of(function), "PyTorch reference")
        return function

    return register


def rule_for(node: fx.Node, module: nn.Module | None) -> RuleFunction | None:
    """Return the rule for what a node calls; None where it is dense."""
    if node.op == "call_module":
        return _by_operation().get(type(module))
    return _by_operation().get(node.target) if node.op in ("call_function", "call_method") else None


@functools.cache
def _by_operation() -> Mapping[Any, RuleFunction]:
    return {operation: entry.value.function for entry in RULES for operation in entry.value.operations}


def _double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("cpu", torch.float64)
