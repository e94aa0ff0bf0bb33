"""Operations that read only a value's size and type, not its values."""

from __future__ import annotations

import operator

from torch import fx

from pruning.compaction.channels import Peek
from pruning.compaction.rules import Operation, rule


@rule("size")
def size(operation: Operation) -> Peek | None:
    """One size, or all of them where each is taken by its position."""
    dim = operation.argument(1, "dim")
    if isinstance(dim, int):
        return _along(operation, operation.source, dim)
    return Peek() if dim is None and _taken_one_by_one(operation.node) else None


@rule("dim")
def dimensions(_: Operation) -> Peek:
    """How many axes there are: compaction removes none."""
    return Peek()


@rule(getattr)
def attribute(operation: Operation) -> Peek | None:
    """`shape` where each size is taken by its position; `ndim`, `dtype` and `device`."""
    name = operation.node.args[1]
    if name == "shape":
        return Peek() if _taken_one_by_one(operation.node) else None
    return Peek() if name in ("ndim", "dtype", "device", "is_cuda") else None


@rule(operator.getitem)
def item(operation: Operation) -> Peek | None:
    """One size out of a shape."""
    shape, position = operation.node.args
    if not isinstance(shape, fx.Node) or not _is_shape(shape) or not isinstance(position, int):
        return None
    value = shape.args[0]
    return _along(operation, value if isinstance(value, fx.Node) else None, position)


def _along(operation: Operation, value: fx.Node | None, dim: int) -> Peek:
    channels = operation.known.get(value) if value is not None else None
    if value is None or channels is None or dim % len(operation.shape_of(value)) != channels.axis:
        return Peek()
    return Peek(channels.width)


def _is_shape(node: fx.Node) -> bool:
    asked = node.op == "call_method" and node.target == "size" and len(node.args) == 1 and not node.kwargs
    return asked or (node.target is getattr and "shape" in node.args)


def _taken_one_by_one(node: fx.Node) -> bool:
    return all(user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users)
