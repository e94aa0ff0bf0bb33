"""Flatten, view and reshape: where a channel's positions become channels of their own, or the other way round."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import fx, nn

from pruning.compaction.channels import Carry, Change, Channels, Cut, Link, carried, unchanged
from pruning.compaction.rules import Operation, rule


@rule(nn.Flatten, torch.flatten, "flatten")
def flatten(operation: Operation) -> Carry | None:
    """Merge axes: channels with the positions behind them, or axes that hold no channels."""
    return None if operation.lone is None else _regrouped(operation, *operation.lone)


@rule("view", "reshape", torch.reshape)
def reshape(operation: Operation) -> Carry | None:
    """Take the numbers in the same order under another shape, in which the channels' axis has another number."""
    source = operation.source
    if operation.node.kwargs or source is None or source not in operation.known:
        return None
    channels = operation.known[source]
    sizes = _sizes(operation.node)
    if sizes is None or operation.shape is None or len(sizes) != len(operation.shape):
        return None
    carry = _regrouped(operation, source, channels)
    if carry is None:
        return None
    axis = carry.channels.axis

    def narrow(cut: Cut) -> Change:
        now = list(_sizes(operation.node) or ())
        free = any(size == -1 for place, size in enumerate(now) if place != axis)
        now[axis] = int(cut.outputs.sum()) if free else -1
        first = operation.node.args[0]
        written_out = isinstance(operation.node.args[1], list | tuple)
        return Change(arguments=(first, tuple(now)) if written_out else (first, *now))

    return Carry(carry.channels, carry.links, narrow)


@rule(torch.unsqueeze, "unsqueeze")
def unsqueeze(operation: Operation) -> Carry | None:
    """Insert an axis of size 1."""
    dim = operation.argument(1, "dim")
    if operation.lone is None or operation.shape is None or not isinstance(dim, int):
        return None
    source, channels = operation.lone
    axis = channels.axis + (dim % len(operation.shape) <= channels.axis)
    return _moved(source, channels, axis)


@rule(torch.squeeze, "squeeze")
def squeeze(operation: Operation) -> Carry | None:
    """Drop a named axis of size 1 behind the channels."""
    dim = operation.argument(1, "dim")
    if operation.lone is None or not isinstance(dim, int):
        return None
    source, channels = operation.lone
    return _moved(source, channels, channels.axis) if dim % len(operation.shape_of(source)) > channels.axis else None


@rule(torch.permute, "permute")
def permute(operation: Operation) -> Carry | None:
    """Put the axes into another order."""
    given = operation.argument(1, "dims")
    dims = given if isinstance(given, list | tuple) else operation.node.args[1:]
    if operation.lone is None or not dims or not all(isinstance(dim, int) for dim in dims):
        return None
    source, channels = operation.lone
    rank = len(operation.shape_of(source))
    return _moved(source, channels, [int(str(dim)) % rank for dim in dims].index(channels.axis))


@rule(torch.transpose, "transpose", torch.swapaxes, "swapaxes")
def transpose(operation: Operation) -> Carry | None:
    """Exchange two axes."""
    first, second = operation.argument(1, "dim0"), operation.argument(2, "dim1")
    if operation.lone is None or not isinstance(first, int) or not isinstance(second, int):
        return None
    source, channels = operation.lone
    rank = len(operation.shape_of(source))
    exchange = {first % rank: second % rank, second % rank: first % rank}
    return _moved(source, channels, exchange.get(channels.axis, channels.axis))


def _moved(source: fx.Node, channels: Channels, axis: int) -> Carry:
    links = (Link.straight(source, channels.axis, channels.width),)
    return Carry(Channels(axis, channels.constant), links, unchanged)


def _regrouped(operation: Operation, source: fx.Node, channels: Channels) -> Carry | None:
    """Follow channels through a new shape: as they are, or merged with the positions behind them."""
    axis, before, after = channels.axis, operation.shape_of(source), operation.shape
    if after is None:
        return None
    # Numbers that lie behind one channel, before and after.
    inner = math.prod(before[axis + 1 :])
    for place in range(min(axis, 1), len(after)):
        if after[place] == channels.width and math.prod(after[place + 1 :]) == inner:
            return _moved(source, channels, place)
    if len(after) <= axis or after[:axis] != before[:axis]:
        return None
    outer = math.prod(after[axis + 1 :])
    width = after[axis]
    if not inner or not outer or inner * channels.width != outer * width:
        return None
    if inner % outer == 0:
        each = np.arange(width)
        link = Link(source, axis, each // (inner // outer), each, np.ones(width, bool))
    elif outer % inner == 0:
        each = np.arange(channels.width)
        link = Link(source, axis, each, each // (outer // inner), np.ones(channels.width, bool))
    else:
        return None
    return Carry(Channels(axis, carried(link, channels.constant, width)), (link,))


def _sizes(node: fx.Node) -> Sequence[object] | None:
    """Return the sizes that `view` or `reshape` is given; None where they come as one value."""
    given = node.args[1:]
    if len(given) == 1 and isinstance(given[0], list | tuple):
        return given[0]
    # One value may be a whole shape.
    return None if len(given) == 1 and isinstance(given[0], fx.Node) else given
