"""The example of a call: what a network makes of it, and what other calls have in common with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.structures import flattened, tensors_in
from pruning.calls.users_code import one_line
from pruning.errors import BadValue
from pruning.sparse.network.skeleton import filled

_DEPTH = 3
_INTERNAL = frozenset(vars(nn.Module()))


def side_effect(network: nn.Module, call: Call) -> str:
    """Return, in words, why a network can only be run as it is; empty where another network may take its place.

    It changes more than its outputs: inputs, buffers, attributes. Or it does not run without gradients.

    Args:
        network: used up.
        call: an example.

    Raises:
        BadValue: an example that the network does not take.

    >>> class Counting(nn.Module):
    ...     calls = 0
    ...     def forward(self, x):
    ...         self.calls += 1
    ...         return x
    >>> call = Call((torch.ones(1),))
    >>> side_effect(Counting(), call), side_effect(nn.Identity(), call)
    ("its forward pass changes its attribute 'calls'", '')
    """
    if not _runs_without_gradients(network, call):
        return "it does not run without gradients"
    given, leaves = call.tensors, flattened(call.values)
    held = call.cloned()
    buffers, attributes = list(network.buffers()), _attributes(network)
    before = [t._version for t in (*given, *buffers)], [id(t) for t in buffers]
    with torch.no_grad():
        network(*call.args, **call.kwargs)
    if not _same_leaves(flattened(call.values), leaves):
        return "its forward pass changes what it is given (a cache grows)"
    after = [t._version for t in (*given, *buffers)], [id(t) for t in network.buffers()]
    if after != before:
        if after[0][: len(given)] == before[0][: len(given)]:
            return "its forward pass changes its buffers"
        with torch.no_grad():
            for tensor, old in zip(given, tensors_in(held.values), strict=True):
                tensor.copy_(old)
        return "its forward pass writes into its inputs"
    now = _attributes(network)
    changed = next((name for name in now if name not in attributes or now[name] != attributes[name]), None)
    return f"its forward pass changes its attribute {changed!r}" if changed is not None else ""


def hidden_weights(network: nn.Module, skeleton: nn.Module, call: Call) -> str:
    """Return, in words, why a network that is made again would not use the weights it gets; empty where it would.

    A weight that is also kept in a list, in a closure or as a view is put into a new network by its name alone. It is
    tried with weights that are not those of the network.

    Args:
        network: without side effects; used up.
        skeleton: its architecture.
        call: an example.

    >>> from pruning.sparse.network.skeleton import skeleton_of
    >>> layer = nn.Linear(1, 1)
    >>> class Listed(nn.Linear):
    ...     def forward(self, x):
    ...         return x * self.listed[0]
    >>> hidden = Listed(1, 1)
    >>> hidden.listed = [hidden.weight]
    >>> call = Call((torch.ones(1),))
    >>> hidden_weights(layer, skeleton_of(layer), call), hidden_weights(hidden, skeleton_of(hidden), call)[:32]
    ('', 'it keeps weights in other places')
    """
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.mul_(1.25)
    state = {name: value.clone() for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    made = filled(skeleton, state, dict(network.named_buffers()))
    found, wanted = ([t.detach() for t in tensors_in(_seeded_run(each, call))] for each in (made, network))
    same = len(found) == len(wanted) and all(map(_close, found, wanted))
    return "" if same else "it keeps weights in other places than under their names (a list, a function, a view)"


def _seeded_run(network: nn.Module, call: Call) -> Any:
    with call.keeping_random_numbers(), torch.no_grad():
        torch.manual_seed(0)
        return call.run(network)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point() or not one.numel():
        return True  # an index of the largest may change with the last digit
    # The same code with the same numbers: what differs is rounding.
    return torch.allclose(one, other, rtol=0.0, atol=1e-4 * float(other.nan_to_num().abs().max()), equal_nan=True)


def alike(one: Any, other: Any) -> bool:
    """Say whether two arguments are both tensors, or the same plain value.

    >>> alike(torch.ones(1), torch.ones(2)), alike(True, 1)
    (True, False)
    """
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    plain = isinstance(one, int | float | str | bool | None)
    return one is other or (plain and type(one) is type(other) and one == other)


def _runs_without_gradients(network: nn.Module, call: Call) -> bool:
    """Say whether a network takes an example without gradients; in this first pass it may set up lazy state."""
    try:
        call.run(network)
    except Exception as error:  # the network's own code may raise anything
        try:
            copies = call.cloned()
            with torch.enable_grad():
                network(*copies.args, **copies.kwargs)
        except Exception:  # it is the first one that says what is wrong with the example
            raise BadValue(
                f"{type(network).__name__} does not take the example ({call.described()}): {one_line(error)}"
            ) from error
        return False
    return True


def _same_leaves(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    plain = int | float | str | bool | None
    return now.keys() == before.keys() and all(
        leaf is before[path] or (isinstance(leaf, plain) and leaf == before[path]) for path, leaf in now.items()
    )


def _attributes(network: nn.Module) -> dict[str, Any]:
    """Return the other attributes of modules, by dotted name, so that two points in time can be compared."""
    return {
        f"{path}.{name}" if path else name: _seen(value, _DEPTH)
        for path, module in network.named_modules()
        for name, value in vars(module).items()
        if name not in _INTERNAL
    }


class _Same:
    """Equal to itself alone, at the version that it had; keeps what it stands for, so that its id is not another's."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.version = value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value and self.version == other.version

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _seen(value: Any, depth: int) -> Any:
    if isinstance(value, int | float | complex | str | bytes | None):
        return type(value), value if value == value else "nan"
    if depth and isinstance(value, Mapping):
        return type(value), [(_seen(key, depth - 1), _seen(held, depth - 1)) for key, held in value.items()]
    if depth and isinstance(value, Sequence):
        return type(value), [_seen(held, depth - 1) for held in value]
    own = vars(value) if hasattr(value, "__dict__") and not isinstance(value, torch.Tensor | nn.Module | type) else {}
    inside = [(name, _seen(held, depth - 1)) for name, held in own.items()] if depth else []
    return _Same(value), inside
