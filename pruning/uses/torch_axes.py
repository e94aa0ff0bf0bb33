"""The axes of PyTorch's weights: by the kind of the layer that owns them, or by the convolution that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pruning.uses.axes import Axes

_GATES = {"LSTM": 4, "GRU": 3, "LSTMCell": 4, "GRUCell": 3}
_PLAIN = (nn.Linear, nn.MultiheadAttention)


def torch_axes(model: nn.Module) -> dict[str, Axes]:
    """Return the axes of every weight of a known kind of layer, by dotted name.

    Units of a recurrent layer have a row for each gate: they are outputs, and the gates taps.

    >>> torch_axes(nn.ConvTranspose1d(4, 6, 3, groups=2))["weight"]
    Axes(shape=(2, 2, 3, 3), outputs=(0, 2), inputs=(1,))
    """
    found: dict[str, Axes] = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        for name, parameter in layer.named_parameters(recurse=False):
            axes = _axes(layer, name, tuple(parameter.shape))
            if axes is not None:
                found.setdefault(f"{path}.{name}" if path else name, axes)
    return found


def _axes(layer: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    if "bias" in name or len(shape) < 2:
        return Axes(shape, tuple(range(len(shape))), ())
    match layer:
        case _ConvTransposeNd():
            split = (layer.groups, shape[0] // layer.groups, *shape[1:])
            return Axes(split, (0, 2), (1,))
        case _ConvNd():
            return Axes(shape, (0,), (1,))
        case nn.RNNBase() | nn.RNNCellBase():
            gates = 1 if name.startswith("weight_hr") else _gates(layer)
            return Axes((gates, shape[0] // gates, shape[1]), (1,), (2,))
        case nn.Bilinear():
            return Axes(shape, (0,), (1, 2))
        case nn.Embedding() | nn.EmbeddingBag():
            return Axes(shape, (1,), (0,))
        case _ if isinstance(layer, _PLAIN) and len(shape) == 2:
            return Axes(shape, (0,), (1,))
        case _:
            return None


def _gates(layer: nn.Module) -> int:
    kinds = [kind.__name__ for kind in type(layer).__mro__]
    return next((_GATES[kind] for kind in kinds if kind in _GATES), 1)


def axes_in_convolution(arguments: Sequence[Any], weight: torch.Tensor) -> Axes | None:
    """Return the axes of a whole weight in `torch.ops.aten.convolution`; None where it is not the very kernel.

    Args:
        arguments: the positional arguments of the operation.
        weight: the tensor as its module has it.

    >>> weight = torch.ones(3, 4, 2)
    >>> axes_in_convolution((torch.ones(1, 4, 5), weight, None, [1], [0], [1], False, [0], 1), weight)
    Axes(shape=(3, 4, 2), outputs=(0,), inputs=(1,))
    """
    shape = tuple(weight.shape)
    if not _is(arguments[1], weight):
        return None
    transposed, groups = arguments[6], arguments[8]
    split = (groups, shape[0] // groups, *shape[1:])
    return Axes(split, (0, 2), (1,)) if transposed else Axes(shape, (0,), (1,))


def _is(value: torch.Tensor, weight: torch.Tensor) -> bool:
    """Say whether a value is the whole weight, with its axes in their order."""
    same = (value.shape, value.stride(), value.data_ptr()) == (weight.shape, weight.stride(), weight.data_ptr())
    return same and weight.numel() > 0
