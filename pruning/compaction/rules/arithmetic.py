"""Sums, differences and products of two values, or of a value and a number."""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch import fx

from pruning.compaction.channels import Carry, Channels, Link
from pruning.compaction.rules import Operation, rule


@rule(
    operator.add,
    operator.iadd,
    operator.sub,
    operator.isub,
    operator.mul,
    operator.imul,
    operator.neg,
    torch.add,
    torch.sub,
    torch.mul,
    torch.maximum,
    torch.minimum,
    "add",
    "add_",
    "sub",
    "sub_",
    "mul",
    "mul_",
    "maximum",
    "minimum",
)
def elementwise(operation: Operation) -> Carry | None:
    """Combine channel with channel; values without channels of their own are followed along the same axis."""
    return _elementwise(operation)


@rule(operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_")
def division(operation: Operation) -> Carry | None:
    """Divide by a number other than 0; a division of two values may give infinities, and is dense."""
    divisor = operation.argument(1, "other")
    if not isinstance(divisor, int | float) or divisor == 0 or operation.lone is None:
        return None
    return _elementwise(operation)


def _elementwise(operation: Operation) -> Carry | None:
    shape, nodes = operation.shape, operation.node.all_input_nodes
    followed = [node for node in nodes if node in operation.known]
    if shape is None or not followed:
        return None
    # Broadcasting lines axes up from the back.
    axes = {operation.known[node].axis - len(operation.shape_of(node)) for node in followed}
    axis = axes.pop() + len(shape)
    if axes or axis < 0:
        return None
    width = shape[axis]
    links: list[Link] = []
    constants = {}
    for node in nodes:
        size = _size(operation, node, axis - len(shape))
        if node in operation.known and size != width:
            return None  # one channel for all: another relation than channel to channel
        if size == width and (width > 1 or node in operation.known):
            links.append(Link.straight(node, axis - len(shape) + len(operation.shape_of(node)), width))
        constants[node] = operation.known[node].constant if node in operation.known else np.full(width, np.nan)
    return Carry(Channels(axis, operation.at(constants, width)), tuple(links))


def _size(operation: Operation, node: fx.Node, axis: int) -> int | None:
    """Return a value's size along an axis counted from the back; None where it has no such axis."""
    shape = operation.observed.shapes.get(node, ())
    return shape[axis] if len(shape) >= -axis else None
