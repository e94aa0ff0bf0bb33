"""Whether a network computes with its own parameters alone: what trains must be what was given."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import BackwardCFunction

from pruning.calls.structures import tensors_in
from pruning.copies.copying import tensors_within
from pruning.errors import BadValue


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
    _refuse(model, foreign)


@contextlib.contextmanager
def gradients_within(model: nn.Module, ends: Any, beside: Sequence[Any] = ()) -> Iterator[None]:
    """Raise `BadValue` where the backward pass inside gives gradients to parameters that nobody could see before it.

    An autograd function that is written in Python may keep a graph to itself: `torch.utils.checkpoint` with
    `use_reentrant=True`. `require_own_parameters` does not see what is in it. Gradients of parameters that the model
    does not hold are afterwards what they were.

    Args:
        model: a copy.
        ends: the tensors to go backward from, in any structure.
        beside: other things whose parameters may get gradients: a loss that is a module.

    >>> layer = nn.Linear(2, 1)
    >>> loss = layer(torch.ones(1, 2)).sum()
    >>> with gradients_within(layer, loss):
    ...     loss.backward()
    """
    nodes = _nodes(ends)
    if not any(isinstance(node, BackwardCFunction) for node in nodes):
        yield
        return
    known = {id(node.variable) for node in nodes if hasattr(node, "variable")}
    known |= {id(tensor) for module in (model, *beside) for tensor in tensors_within(module)}
    others: list[nn.Parameter] = [
        thing for thing in gc.get_objects() if nn.Parameter in type(thing).__mro__ and id(thing) not in known
    ]
    before = [(parameter, parameter.grad) for parameter in others if parameter.requires_grad]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        foreign = [parameter for parameter, _ in before if parameter.grad is not None]
        for parameter, gradient in before:
            parameter.grad = gradient
    _refuse(model, foreign)


def check_as_it_runs(model: nn.Module, run: Callable[[], Any]) -> None:
    """Raise `BadValue` where a network computes with foreign parameters; where it fails, nothing is said.

    Args:
        model: a copy; its gradients change.
        run: returns its outputs; gradients are recorded.
    """
    outputs: Any = ()
    with contextlib.suppress(Exception):  # it is asked where it runs; that it must is somebody else's concern
        outputs = run()
    require_own_parameters(model, outputs)
    ends = [tensor for tensor in tensors_in(outputs) if tensor.requires_grad]
    with gradients_within(model, ends), contextlib.suppress(Exception):  # not every output need have a derivative
        torch.autograd.backward(ends, [torch.ones_like(end) for end in ends])


def _refuse(model: nn.Module, foreign: Sequence[nn.Parameter]) -> None:
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
    yield from (tensor for tensor in tensors_in(outputs) if tensor.requires_grad and tensor.is_leaf)
    yield from (node.variable for node in _nodes(outputs) if hasattr(node, "variable"))


def _nodes(outputs: Any) -> set[Any]:
    """Return the graph behind these outputs."""
    level: list[Any] = [tensor.grad_fn for tensor in tensors_in(outputs) if tensor.grad_fn is not None]
    seen: set[Any] = set()
    while level:
        node = level.pop()
        if node not in seen:
            seen.add(node)
            level += [following for following, _ in node.next_functions if following is not None]
    return seen
