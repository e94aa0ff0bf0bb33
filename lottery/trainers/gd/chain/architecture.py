"""Whether a network is a chain of fully connected layers, seen from what its forward pass does."""

from __future__ import annotations

import gc
import itertools
import operator
import sys
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules import module as everywhere

from lottery.trainers.gd.chain.effects import is_pythons, only_computes
from pruning.calls.users_code import one_line
from pruning.copies.copying import copy_module

ACTIVATIONS = ("identity", "relu", "tanh", "sigmoid")
"""What a chain may compute after a layer, in the order of the numbers that the compiled steps know them by."""

MOST_LAYERS = 64

_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Identity: "identity",
}
_FUNCTIONS: dict[Any, str] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), "relu"),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh"), "tanh"),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid"), "sigmoid"),
}
# What may stand before the first layer: it gives each example as one row.
_FLATTENING = (torch.flatten, torch.reshape, "flatten", "view", "reshape")
_LOOKING_AT_SHAPES = ("size", getattr, operator.getitem)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Where a parameter keeps those who listen to its gradients."""


@dataclass(frozen=True)
class Link:
    """One fully connected layer and what follows it.

    Attributes:
        weight: the name of its matrix [outputs, inputs].
        bias: the name of its bias, or None.
        inputs: how many.
        outputs: how many.
        activation: one of `ACTIVATIONS`.
    """

    weight: str
    bias: str | None
    inputs: int
    outputs: int
    activation: str


Architecture = tuple[Link, ...]


@dataclass(frozen=True)
class NoChain:
    """Why a network is no chain."""

    reason: str


def architecture_of(model: nn.Module) -> Architecture | NoChain:
    """Return the layers of a network that is a chain, or why it is none.

    The forward pass is traced, in training and in evaluation mode. What a trace cannot see rules a network out: hooks,
    forward passes that keep something, branch or call functions for their effect, weights that are computed.

    >>> architecture_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))[0]
    Link(weight='1.weight', bias='1.bias', inputs=4, outputs=3, activation='relu')
    >>> architecture_of(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))).reason
    "'1' (Dropout) is not fully connected"
    """
    if reason := _beyond_a_trace(model):
        return NoChain(reason)
    try:
        found = [_traced(copy_module(model).train(mode)) for mode in (True, False)]
    except Exception as error:  # a trace runs the caller's code on values that are none
        return NoChain(f"its forward pass cannot be traced: {one_line(error)}")
    training, evaluation = found
    if isinstance(training, NoChain):
        return training
    if isinstance(evaluation, NoChain):
        return evaluation
    if training != evaluation:
        return NoChain("it computes something else in evaluation mode")
    if len({link.weight for link in training}) < len(training):
        return NoChain("layers share a weight")
    named = {name for link in training for name in (link.weight, link.bias) if name is not None}
    if left := {name for name, _ in model.named_parameters(remove_duplicate=False)} - named:
        return NoChain(f"{min(left)!r} is in no layer of the chain")
    return training if len(training) <= MOST_LAYERS else NoChain(f"it has more than {MOST_LAYERS} layers")


def _beyond_a_trace(model: nn.Module) -> str | None:
    """Return what rules a network out before its forward pass is looked at."""
    if any(getattr(everywhere, name) for name in _GLOBAL_HOOKS):
        return "there are hooks on all modules"
    if next(model.buffers(), None) is not None:
        return "it has buffers"
    parameters = [p for _, p in model.named_parameters(remove_duplicate=False)]
    if len({id(p) for p in parameters}) < len(parameters):
        return "layers share a weight"
    for parameter in parameters:
        if type(parameter) is not nn.Parameter or any(getattr(parameter, name, None) for name in PARAMETER_HOOKS):
            return "a parameter is no plain one, or has hooks"
    for name, module in model.named_modules():
        where = f"{name or 'the model'!r} ({type(module).__name__})"
        if any(getattr(module, hooks, None) for hooks in _HOOKS) or "forward" in vars(module):
            return f"{where} has hooks, or a forward pass of its own"
        if hasattr(module, "parametrizations"):
            return f"{where} computes its weights"
        if type(module).__call__ is not nn.Module.__call__ or hasattr(type(module).forward, "__wrapped__"):
            return f"{where} is called in a way of its own"
        if type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval:
            return f"{where} may write its weights where its mode changes"
        if type(module) is nn.Linear and not _is_plain(module):
            return f"{where} has a weight or a bias of another shape"
    return None


def _is_plain(layer: nn.Linear) -> bool:
    """Say whether a layer's tensors have the shapes that it states: one may have been put in another's place."""
    shape = (layer.out_features, layer.in_features)
    return layer.weight.shape == shape and 0 not in shape and (layer.bias is None or layer.bias.shape == shape[:1])


def _traced_by(model: nn.Module) -> tuple[fx.Graph, set[types.CodeType]]:
    """Return what a forward pass computes, and the functions of others than PyTorch's that were called meanwhile."""
    called: set[types.CodeType] = set()

    def seen(frame: types.FrameType, event: str, _: Any) -> None:
        # A named tuple is made by a function without a file.
        known = str(frame.f_globals.get("__name__")).startswith("namedtuple_")
        if event == "call" and not known and not is_pythons(frame.f_code.co_filename):
            called.add(frame.f_code)

    def trace() -> fx.Graph:
        fx.Tracer().trace(model)  # what is imported or kept at a first call is no part of the second
        sys.setprofile(seen)
        try:
            return fx.Tracer().trace(model)
        finally:
            sys.setprofile(None)

    collects = gc.isenabled()
    gc.disable()  # other libraries have functions called when garbage is collected, which may be at any time
    try:
        # In a thread of its own: a profiler of the caller's goes on looking at the caller's.
        with ThreadPoolExecutor(1) as pool:
            graph = pool.submit(trace).result()
    finally:
        if collects:
            gc.enable()
    return graph, called


def _traced(model: nn.Module) -> Architecture | NoChain:
    graph, called = _traced_by(model)
    if doubtful := [code.co_qualname for code in called if not only_computes(code)]:
        return NoChain(f"{min(doubtful)} may do more than it returns")
    modules = dict(model.named_modules())
    layers: list[Link] = []
    begun: fx.Node | None = None  # the value of the chain so far
    shapes: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            if begun is not None:
                return NoChain("it takes more than one input")
            begun = node
        elif node.op == "get_attr":
            continue
        elif node.op == "output":
            if node.args[0] is not begun:
                return NoChain("it returns something else than its last layer")
        elif _is_shape(node, begun, shapes):
            shapes.add(node)
        else:
            if not node.args or node.args[0] is not begun:
                return NoChain("its layers do not follow one another")
            said = _extended(layers, node, modules)
            if isinstance(said, NoChain):
                return said
            layers, begun = said, node
    if not layers:
        return NoChain("it has no fully connected layer")
    fit = all(before.outputs == after.inputs for before, after in itertools.pairwise(layers))
    return tuple(layers) if fit else NoChain("its layers do not fit")


def _is_shape(node: fx.Node, begun: fx.Node | None, shapes: set[fx.Node]) -> bool:
    """Say whether a node gives a shape, or an entry of one, of the value so far."""
    if node.target not in _LOOKING_AT_SHAPES or not node.args:
        return False
    if node.target is getattr:
        return node.args[0] is begun and node.args[1] == "shape"
    return node.args[0] is begun if node.target == "size" else node.args[0] in shapes


def _extended(layers: list[Link], node: fx.Node, modules: dict[str, nn.Module]) -> list[Link] | NoChain:
    """Return the layers with what a node computes."""
    if (layer := _layer(node, modules)) is not None:
        return [*layers, layer]
    kind: Any = node.target
    module = modules[kind] if node.op == "call_module" else None
    if isinstance(module, nn.Flatten) or (module is None and kind in _FLATTENING):
        return NoChain("it gives its activations another shape") if layers else layers
    if isinstance(module, nn.Dropout) and module.p == 0:
        return layers
    activation = _MODULES.get(type(module)) if module is not None else _FUNCTIONS.get(kind)
    if activation is None:
        words = f"{kind!r} ({type(module).__name__})" if module is not None else repr(getattr(kind, "__name__", kind))
        return NoChain(f"{words} is not fully connected")
    if activation == "identity":
        return layers
    if not layers or layers[-1].activation != "identity":
        return NoChain("an activation follows no layer")
    last = layers[-1]
    return [*layers[:-1], Link(last.weight, last.bias, last.inputs, last.outputs, activation)]


def _layer(node: fx.Node, modules: dict[str, nn.Module]) -> Link | None:
    """Return the fully connected layer that a node is, if it is one."""
    if node.op == "call_module" and type(module := modules[str(node.target)]) is nn.Linear:
        bias = f"{node.target}.bias" if module.bias is not None else None
        return Link(f"{node.target}.weight", bias, module.in_features, module.out_features, "identity")
    return None


def parameters_of(architecture: Architecture) -> Iterator[str]:
    """Yield the names of a chain's parameters, weight before bias, layer by layer.

    >>> list(parameters_of((Link("a.weight", None, 2, 1, "relu"), Link("b.weight", "b.bias", 1, 1, "identity"))))
    ['a.weight', 'b.weight', 'b.bias']
    """
    for link in architecture:
        yield from (name for name in (link.weight, link.bias) if name is not None)
