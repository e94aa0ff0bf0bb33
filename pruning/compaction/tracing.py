"""Tracing: a module as a graph of operations, around the submodules that cannot be seen through."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch import fx, nn

from pruning.calls.call import Call
from pruning.errors import first_line

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@dataclass(frozen=True)
class Traced:
    """A traced module.

    Attributes:
        network: the graph; it shares its leaves with the module. None where the module itself cannot be traced.
        opaque: submodules that are leaves because they cannot be seen through, and why; `""` is the module itself.
    """

    network: fx.GraphModule | None
    opaque: Mapping[str, str]


def trace(root: nn.Module, call: Call) -> Traced:
    """Trace a module, called in this way, as far as that is possible.

    Layers of `torch.nn` are leaves. A submodule whose own code cannot be traced becomes a leaf, and so does one with
    forward hooks, which may do anything.
    """
    opaque = {name: "it has forward hooks" for name, module in root.named_modules() if _hooked(module)}
    while "" not in opaque:
        tracer = _Tracer(frozenset(opaque), call)
        try:
            graph = tracer.trace(root)
            network = fx.GraphModule(root, graph, class_name=type(root).__name__)
        except Exception as error:  # tracing runs the module's own code, which may raise anything
            opaque[tracer.stuck or ""] = f"it cannot be traced: {first_line(error)}"
        else:
            called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
            return Traced(network, {name: reason for name, reason in opaque.items() if name in called})
    return Traced(None, {"": opaque[""]})


def is_layer(module: nn.Module) -> bool:
    """Say whether a module is one of PyTorch's own layers (a leaf when traced), not a container of others.

    >>> is_layer(nn.Linear(2, 1)), is_layer(nn.Sequential()), is_layer(nn.ModuleList())
    (True, False, False)
    """
    container = isinstance(module, nn.ModuleList | nn.ModuleDict)
    return fx.Tracer().is_leaf_module(module, "") and not container


class _Tracer(fx.Tracer):
    def __init__(self, opaque: Set[str], call: Call) -> None:
        super().__init__()
        self.opaque = opaque
        self.how = call
        self.stuck: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.opaque or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            # The innermost module with code of its own, through which the error passes first, is the one to blame.
            path = self.path_of_module(m)
            if self.stuck is None and not self.is_leaf_module(m, path):
                self.stuck = path
            raise

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Make an input for every argument that the call gives; the others keep their defaults."""
        forward, count = self.root.forward, len(self.how.args)
        names = [*_positional_names(forward, self.how.args), *self.how.kwargs]
        inputs = [self.create_proxy("placeholder", name, (), {}) for name in names]
        named = dict(zip(self.how.kwargs, inputs[count:], strict=True))
        return lambda *given: forward(*given, **named), inputs[:count]

    def create_arg(self, a: Any) -> Any:
        """Make mappings of other types than `dict` in the graph: PyTorch would make a plain dictionary of them."""
        if not isinstance(a, Mapping) or type(a) is dict:
            return super().create_arg(a)
        if is_dataclass(a):
            values = {str(name): self.create_arg(value) for name, value in a.items()}
            return self.create_node("call_function", type(a), (), values)
        return self.create_node("call_function", type(a), (self.create_arg(dict(a)),), {})


def _positional_names(forward: Any, args: tuple[Any, ...]) -> list[str]:
    """Return a name for each positional argument; several that one `*names` takes are numbered."""
    signature = inspect.signature(forward)
    names: list[str] = []
    for name, value in signature.bind_partial(*args).arguments.items():
        several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        names += [f"{name}_{index}" for index in range(len(value))] if several else [name]
    return names


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, kind) for kind in _HOOKS)
