"""Means, sums and extremes over positions."""

from __future__ import annotations

import numpy as np
import torch

from pruning.compaction.channels import Carry, Channels, Link
from pruning.compaction.rules import Operation, rule


@rule(torch.mean, torch.amax, torch.amin, "mean", "amax", "amin")
def mean(operation: Operation) -> Carry | None:
    """Mean or extreme over positions: a constant stays what it is."""
    return _reduced(operation)


@rule(torch.sum, "sum")
def total(operation: Operation) -> Carry | None:
    """Sum over positions: only a 0 stays constant whatever the number of positions."""
    carry = _reduced(operation)
    if carry is None:
        return None
    zero = np.where(carry.channels.constant == 0, 0.0, np.nan)
    return Carry(Channels(carry.channels.axis, zero), carry.links)


def _reduced(operation: Operation) -> Carry | None:
    dims, keep = operation.argument(1, "dim"), operation.argument(2, "keepdim", False)
    if operation.lone is None or "dtype" in operation.node.kwargs or not isinstance(keep, bool):
        return None
    source, channels = operation.lone
    dims = dims if isinstance(dims, list | tuple) else [dims]
    if not dims or not all(isinstance(dim, int) for dim in dims):
        return None
    gone = {dim % len(operation.shape_of(source)) for dim in dims}
    if channels.axis in gone:
        return None
    axis = channels.axis if keep else channels.axis - sum(dim < channels.axis for dim in gone)
    return Carry(Channels(axis, channels.constant), (Link.straight(source, channels.axis, channels.width),))
