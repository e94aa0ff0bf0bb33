"""Linear layers and convolutions: every output channel may read every input channel (of its group)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pruning.compaction.channels import Carry, Change, Channels, Cut, Flags, Link, Mix, Numbers, unknown_where_infinite
from pruning.compaction.rules import Operation, rule

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@rule(nn.Linear)
def linear(operation: Operation) -> Mix | None:
    """Channels are the last axis."""
    module = operation.module
    assert isinstance(module, nn.Linear)
    source = operation.source
    if source is None or operation.shape is None:
        return None
    axis = len(operation.shape_of(source)) - 1
    return _mix(operation, module, axis, padded=False)


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(operation: Operation) -> Mix | Carry | None:
    """Channels lie before the positions; in groups, channels of a group stay together."""
    module = operation.module
    assert isinstance(module, Convolution)
    source = operation.source
    if source is None or operation.shape is None:
        return None
    axis = len(operation.shape_of(source)) - len(module.kernel_size) - 1
    return _mix(operation, module, axis, _pads_with_zeros(module)) if module.groups == 1 else _groups(operation, axis)


def _pads_with_zeros(module: Convolution) -> bool:
    """Say whether a convolution sees zeros beyond the border, so that a constant channel is no constant there."""
    if module.padding_mode != "zeros" or module.padding == "valid":
        return False
    if module.padding == "same":
        return any(size > 1 for size in module.kernel_size)
    return any(pad != 0 for pad in module.padding)


def _mix(operation: Operation, module: nn.Linear | Convolution, axis: int, padded: bool) -> Mix | None:
    source = operation.source
    if source is None or not module.weight.is_floating_point():
        return None
    weights, kept = _weights(operation, module)
    connected = np.asarray(kept.any(2))
    folded = _folded(operation, axis, connected.shape[1], padded)
    # Rows that see nothing but constants are constant themselves.
    reaches = (connected & np.isnan(folded)).any(1)
    shift = weights.sum(2) @ np.nan_to_num(folded)
    bias = shift if module.bias is None else shift + _numbers(module.bias)
    constant = unknown_where_infinite(np.where(reaches, np.nan, bias))

    def narrow(cut: Cut) -> Change:
        rows = cut.right & np.isnan(constant)
        used = connected & rows[:, None] & np.isnan(folded)
        right_bias = np.where(cut.right, bias, 0.0)
        return narrowed(module, kept & used[:, :, None], right_bias, cut.outputs, cut.inputs, groups=1)

    rank = len(operation.shape or ())
    out_axis = rank - 1 if isinstance(module, nn.Linear) else axis
    return Mix(source, axis, Channels(out_axis, constant), connected, folded, kept.shape[2], narrow)


def _groups(operation: Operation, axis: int) -> Carry | None:
    """A convolution in groups carries channels: whole groups go, and nothing else."""
    module, source = operation.module, operation.source
    assert isinstance(module, Convolution)
    if source is None or not module.weight.is_floating_point():
        return None
    if source in operation.known and operation.known[source].axis != axis:
        return None
    weights, kept = _weights(operation, module)
    rows, columns = kept.shape[0], kept.shape[1]
    outer = np.repeat(np.arange(rows), columns)
    group = np.arange(rows) // (rows // module.groups)
    inner = (group[:, None] * columns + np.arange(columns)).reshape(-1)
    connected = np.asarray(kept.any(2))
    folded = _folded(operation, axis, module.in_channels, _pads_with_zeros(module))[inner].reshape(rows, columns)
    reaches = (connected & np.isnan(folded)).any(1)
    shift = (weights.sum(2) * np.nan_to_num(folded)).sum(1)
    own = np.zeros(rows) if module.bias is None else _numbers(module.bias)
    constant = unknown_where_infinite(np.where(reaches, np.nan, shift + own))
    read = connected & np.isnan(constant)[:, None]

    def narrow(cut: Cut) -> Change:
        left = kept & (read & cut.right[:, None])[:, :, None]
        bias = np.where(cut.right, np.where(np.isnan(constant), own, constant), 0.0)
        present = np.unique(group[cut.outputs])
        return narrowed(module, left, bias, cut.outputs, np.ones(columns, bool), groups=len(present))

    return Carry(Channels(axis, constant), (Link(source, axis, inner, outer, read.reshape(-1)),), narrow)


def narrowed(
    module: nn.Linear | Convolution, kept: Flags, bias: Numbers, rows: Flags, columns: Flags, groups: int
) -> Change:
    """Return the same layer with fewer rows and columns.

    Args:
        module: the layer.
        kept: the weights that still matter [out, in, taps]; the others become 0.
        bias: the bias of every row [out], before any is taken away.
        rows: those that stay [out].
        columns: those that stay [in of a group].
        groups: how many are left.

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> kept, second = np.array([[True, True], [True, False]]), np.array([False, True])
    >>> change = narrowed(layer, kept, np.array([5.0, 6.0]), rows=second, columns=~second | second, groups=1)
    >>> [tensor.tolist() for tensor in change.module.parameters()]
    [[[3.0, 0.0]], [6.0]]
    """
    old = module.weight
    shape = (int(rows.sum()), int(columns.sum()), *old.shape[2:])
    left = kept[rows][:, columns].reshape(shape)
    device = old.device
    chosen = old.detach()[torch.from_numpy(rows).to(device)][:, torch.from_numpy(columns).to(device)]
    weight = chosen.masked_fill(torch.from_numpy(~left).to(device), 0.0)
    has_bias = module.bias is not None or bool(bias[rows].any())
    smaller = _empty(module, shape, groups, has_bias)
    smaller.weight = nn.Parameter(weight, old.requires_grad)
    if has_bias:
        values = torch.from_numpy(bias[rows]).to(device, old.dtype)
        smaller.bias = nn.Parameter(values, old.requires_grad if module.bias is None else module.bias.requires_grad)
    return Change(smaller.eval(), {"weight": left})


def _empty(module: nn.Linear | Convolution, shape: tuple[int, ...], groups: int, bias: bool) -> nn.Linear | Convolution:
    """Return a layer like another, of another width, that has no memory yet."""
    if isinstance(module, nn.Linear):
        return nn.Linear(shape[1], shape[0], bias, device="meta")
    return type(module)(
        shape[1] * groups,
        shape[0],
        module.kernel_size,  # pyright: ignore[reportArgumentType]
        module.stride,  # pyright: ignore[reportArgumentType]
        module.padding,  # pyright: ignore[reportArgumentType]
        module.dilation,  # pyright: ignore[reportArgumentType]
        groups,
        bias,
        module.padding_mode,
        device="meta",
    )


def _folded(operation: Operation, axis: int, width: int, padded: bool) -> Numbers:
    """Return the constant of each input channel that a bias can stand for; NaN for the others."""
    channels = operation.known.get(operation.source) if operation.source is not None else None
    if channels is None or channels.axis != axis:
        return np.full(width, np.nan)
    return np.where(channels.constant == 0, 0.0, np.nan) if padded else channels.constant


def _weights(operation: Operation, module: nn.Linear | Convolution) -> tuple[Numbers, Flags]:
    """Return weights and mask [out, in of a group, taps]."""
    weights = _numbers(module.weight)
    kept = operation.kept.get(module.weight, np.ones(weights.shape, bool))
    shape = (*weights.shape[:2], -1)
    return weights.reshape(shape), kept.reshape(shape)


def _numbers(value: torch.Tensor) -> Numbers:
    return value.detach().to("cpu", torch.float64).numpy()
