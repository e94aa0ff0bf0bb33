"""Pooling and padding: channels stay, positions are gathered."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pruning.compaction.channels import Carry, Channels, Link, Numbers
from pruning.compaction.rules import Operation, rule


@rule(
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    F.max_pool1d,
    F.max_pool2d,
    F.max_pool3d,
    torch.max_pool1d,
    torch.max_pool2d,
    torch.max_pool3d,
    F.adaptive_max_pool1d,
    F.adaptive_max_pool2d,
    F.adaptive_max_pool3d,
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
)
def pooling(operation: Operation) -> Carry | None:
    """Maximum, or mean over whole windows: a constant stays what it is."""
    return _over_positions(operation, operation.known[operation.lone[0]].constant) if operation.lone else None


@rule(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
def average_pooling_module(operation: Operation) -> Carry | None:
    """Mean over windows, which padding with zeros may be counted into."""
    module = operation.module
    assert isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d)
    divisor = getattr(module, "divisor_override", None)
    return _average(operation, module.padding, module.count_include_pad, divisor)


@rule(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, torch.avg_pool1d)
def average_pooling_function(operation: Operation) -> Carry | None:
    """Mean over windows, which padding with zeros may be counted into."""
    padding = operation.argument(3, "padding", 0)
    counted = operation.argument(5, "count_include_pad", True)
    return _average(operation, padding, counted, operation.argument(6, "divisor_override"))


@rule(nn.Upsample, F.interpolate)
def interpolation(operation: Operation) -> Carry | None:
    """Means of neighbours whose shares add up to 1: a constant stays what it is."""
    if operation.lone is None or operation.lone[1].axis != 1:
        return None
    return _over_positions(operation, operation.lone[1].constant)


@rule(F.pad)
def padding_function(operation: Operation) -> Carry | None:
    """Add positions of a fixed value, or copies of others; channels themselves must not be added."""
    pads, mode, value = operation.argument(1, "pad"), operation.argument(2, "mode", "constant"), None
    if mode == "constant":
        value = operation.argument(3, "value", None) or 0.0
    if operation.lone is None or not isinstance(pads, list | tuple):
        return None
    if len(pads) // 2 > len(operation.shape_of(operation.lone[0])) - 1 - operation.lone[1].axis:
        return None
    constant = operation.lone[1].constant
    return _over_positions(operation, constant if value is None else np.where(constant == value, constant, np.nan))


def _average(operation: Operation, padding: object, counted: object, divisor: object) -> Carry | None:
    if operation.lone is None:
        return None
    constant = operation.lone[1].constant
    padded = padding != 0 and set(padding if isinstance(padding, list | tuple) else [padding]) != {0}
    if divisor is not None or (padded and counted is not False):
        constant = np.where(constant == 0, 0.0, np.nan)
    return _over_positions(operation, constant)


def _over_positions(operation: Operation, constant: Numbers) -> Carry | None:
    """Keep the channels where nothing but positions behind them changes size."""
    if operation.lone is None or operation.shape is None:
        return None
    source, channels = operation.lone
    before = operation.shape_of(source)
    # What a pooling pools over lies behind the channels, in its last axes; a [N, C, L] that a two-dimensional
    # pooling takes for a single image has its channels among them.
    pooled = _pooled_axes(operation)
    if len(before) != len(operation.shape) or channels.axis >= len(before) - pooled:
        return None
    links = (Link.straight(source, channels.axis, channels.width),)
    return Carry(Channels(channels.axis, constant), links)


def _pooled_axes(operation: Operation) -> int:
    """Return over how many of the last axes an operation works, by its name (`MaxPool2d`, `avg_pool1d`)."""
    if operation.node.op == "call_module":
        name = type(operation.module).__name__
    else:
        name = getattr(operation.node.target, "__name__", "")
    found = [int(digit) for digit in name if digit.isdigit()]
    return found[0] if found else 1
