"""Concatenation."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from pruning.compaction.channels import Carry, Channels, Link
from pruning.compaction.rules import Operation, rule


@rule(torch.cat, torch.concat, torch.concatenate)
def concatenation(operation: Operation) -> Carry | None:
    """Lay values one behind the other, along their channels or along positions."""
    parts, dim = operation.argument(0, "tensors"), operation.argument(1, "dim", 0)
    shape = operation.shape
    if shape is None or not isinstance(dim, int) or not isinstance(parts, list | tuple):
        return None
    if not all(isinstance(part, fx.Node) and len(operation.shape_of(part)) == len(shape) for part in parts):
        return None
    if len(set(parts)) != len(parts):
        return None
    nodes = [part for part in parts if isinstance(part, fx.Node)]
    axes = {operation.known[node].axis for node in nodes if node in operation.known}
    if len(axes) != 1:
        return None
    axis = axes.pop()
    along = _along_channels if dim % len(shape) == axis else _along_positions
    return along(operation, nodes, axis)


def _along_channels(operation: Operation, nodes: list[fx.Node], axis: int) -> Carry:
    links, constants, offset = [], [], 0
    for node in nodes:
        width = operation.shape_of(node)[axis]
        links.append(Link.straight(node, axis, width, offset))
        constants.append(operation.known[node].constant if node in operation.known else np.full(width, np.nan))
        offset += width
    return Carry(Channels(axis, np.concatenate(constants)), tuple(links))


def _along_positions(operation: Operation, nodes: list[fx.Node], axis: int) -> Carry:
    width = operation.shape_of(nodes[0])[axis]
    unknown = np.full(width, np.nan)
    constants = [operation.known[node].constant if node in operation.known else unknown for node in nodes]
    same = np.where(np.all([values == constants[0] for values in constants], 0), constants[0], np.nan)
    return Carry(Channels(axis, same), tuple(Link.straight(node, axis, width) for node in nodes))
