"""What each of torch's operations is in JAX: ours, torchax's, or torch's own way to put it together from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from es.translation.torchax_names import import_torchax

Operation = Callable[..., Any]
_OURS: dict[str, Operation] = {}


def operation(*names: str) -> Callable[[Operation], Operation]:
    """Register a function of JAX arrays as one of torch's operations, by name.

    It takes what the operation takes, arrays in place of tensors. `"add"` stands for every overload of `aten::add`,
    `"add.Scalar"` for one, `"library::add"` for that of another library. What it returns gets the type that torch's
    result has.
    """

    def add(function: Operation) -> Operation:
        for name in names:
            full = name if "::" in name else f"aten::{name}"
            assert full not in _OURS, name
            _OURS[full] = function
        return function

    return add


def find(overload: Any) -> Operation | None:
    """Return an operation as a function of JAX arrays, or None."""
    name = overload._schema.name
    ours = _OURS.get(f"{name}.{overload._overloadname}", _OURS.get(name))
    if ours is not None:
        return ours
    table = import_torchax().ops.ops_registry.all_aten_ops
    theirs = table.get(overload, table.get(overload.overloadpacket))
    if theirs is None or not theirs.is_jax_function or theirs.needs_env:
        return None
    return theirs.func


def decomposition(overload: Any) -> Operation | None:
    """Return torch's own way to compute an operation by others, on tensors, or None.

    >>> decomposition(torch.ops.aten.matmul.default)(torch.ones(1, 2), torch.ones(2, 1)).item()
    2.0
    >>> decomposition(torch.ops.aten.mm.default) is None
    True
    """
    from torch._decomp import decomposition_table

    found = decomposition_table.get(overload)
    if found is None and overload.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return overload.decompose
    return found


def functional(overload: Any) -> Any | None:
    """Return the operation that computes what this one writes (`add.Tensor` of `add_.Tensor`), or None."""
    packet, name = overload._schema.name.removeprefix("aten::"), overload._overloadname
    if packet.endswith("_") and not packet.endswith("__"):
        found, wanted = packet[:-1], [name]
    elif packet.startswith("__i") and packet.endswith("__"):  # x |= y is `__ior__`
        found, wanted = "__" + packet[3:], [name]
    else:
        found, wanted = packet, [name.removesuffix("out").rstrip("_") or "default"]
    operator = getattr(torch.ops.aten, found, None)
    return next((getattr(operator, each) for each in wanted if hasattr(operator, each)), None)
