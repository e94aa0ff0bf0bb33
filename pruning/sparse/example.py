"""The example of a call: what a network makes of it, and what other calls have in common with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pruning.errors import BadValue
from pruning.structures import flattened, map_tensors, tensors_in


def run_example(network: nn.Module, example: Sequence[Any]) -> Any:
    """Return what a network makes of an example; raises `BadValue` where it does not take it."""
    try:
        with torch.no_grad():
            return network(*example)
    except Exception as error:  # the network's own code may raise anything
        shapes = ", ".join(f"{list(a.shape)} {a.dtype}" if isinstance(a, torch.Tensor) else repr(a) for a in example)
        raise BadValue(
            f"{type(network).__name__} does not take the example ({shapes}): {next(iter(str(error).splitlines()), '')}"
        ) from error


def side_effect(network: nn.Module, example: Sequence[Any]) -> str:
    """Return what a forward pass changes beside its outputs, in words; empty where it changes nothing."""
    given, leaves = tensors_in(example), flattened(example)
    buffers = list(network.buffers())
    before = [t._version for t in (*given, *buffers)], [id(t) for t in buffers]
    held = [t.clone() for t in given]
    run_example(network, example)
    if not _same_leaves(flattened(example), leaves):
        return "its forward pass changes what it is given (a cache grows)"
    after = [t._version for t in (*given, *buffers)], [id(t) for t in network.buffers()]
    if after == before:
        return ""
    if after[0][: len(given)] == before[0][: len(given)]:
        return "its forward pass changes its buffers"
    with torch.no_grad():
        for tensor, old in zip(given, held, strict=True):
            tensor.copy_(old)
    return "its forward pass writes into its inputs"


def alike(one: Any, other: Any) -> bool:
    """Say whether two arguments are both tensors, or the same plain value.

    >>> alike(torch.ones(1), torch.ones(2)), alike(True, 1)
    (True, False)
    """
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    plain = isinstance(one, int | float | str | bool | None)
    return one is other or (plain and type(one) is type(other) and one == other)


def _same_leaves(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    plain = int | float | str | bool | None
    return now.keys() == before.keys() and all(
        leaf is before[path] or (isinstance(leaf, plain) and leaf == before[path]) for path, leaf in now.items()
    )


def like(given: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """Return an example on the device and in the type of numbers that the network has now."""
    floats = [t for t in tensors if t.is_floating_point()]
    if not floats:
        return given
    device, dtype = floats[0].device, floats[0].dtype
    return map_tensors(lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype), given)
