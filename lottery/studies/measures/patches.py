"""The patches of the input that the first layer of a network sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lottery.data.batches import move, sample, size
from lottery.networks.objectives.objective import call
from lottery.state.counts import check_count
from lottery.studies.measures.energy import principal_components
from lottery.studies.view import TorchView
from pruning.copies.copying import copy_module
from pruning.errors import BadValue

_BATCH = 50


class _Seen(Exception):
    """Ends a forward pass at the first layer."""


def first_layer(model: nn.Module, tensors: list[str]) -> tuple[str, str]:
    """Return the first of these tensors, and its layer's name; raises `BadValue` where that layer has no patches.

    >>> first_layer(nn.Sequential(nn.Flatten(), nn.Linear(2, 1)), ["1.weight"])
    ('1.weight', '1')
    """
    name = tensors[0]
    path = name.rpartition(".")[0]
    layer = model.get_submodule(path)
    fits = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1)
    if not fits or layer.weight is not model.get_parameter(name):
        raise BadValue(
            f"filter-energy needs a linear or an ungrouped 1- or 2-dimensional convolution layer first; {name!r} "
            f"belongs to {type(layer).__name__}"
        )
    return name, path


def patch_basis(view: TorchView, path: str, examples: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances, falling, and principal components [components, inputs] of what a layer sees of training data.

    Args:
        view: the network's architecture and the data.
        path: the path of the layer.
        examples: the most training examples. Patches of a convolution are those that lie inside its input.
    """
    check_count("examples", examples)
    network = copy_module(view.model).to(view.device).eval()
    layer = network.get_submodule(path)
    inputs, _ = sample(view.parts.train, examples, 0)
    count, total, products = 0, 0.0, 0.0
    for batch in _split(move(inputs, view.device)):
        for vectors in _input_of(network, layer, batch):
            count, total, products = count + len(vectors), total + vectors.sum(0), products + vectors.T @ vectors
    return principal_components(count, np.asarray(total), np.asarray(products))


def _split(inputs: Any) -> list[Any]:
    return list(inputs.split(_BATCH)) if isinstance(inputs, torch.Tensor) and size(inputs) else [inputs]


def _input_of(network: nn.Module, layer: nn.Module, inputs: Any) -> list[NDArray[np.float64]]:
    """Return the vectors that a layer multiplies its filters with, [vectors, inputs], for each of its uses."""
    seen: list[torch.Tensor] = []

    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0].detach())
        raise _Seen

    handle = layer.register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            call(network, inputs)
    except _Seen:
        pass
    finally:
        handle.remove()
    if not seen:
        raise BadValue("filter-energy: the first layer with a mask takes no part in the forward pass")
    return [_vectors(layer, value.float().cpu()).double().numpy() for value in seen]


def _vectors(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.Conv1d):
        values, kernel = values[:, :, None], (1, *layer.kernel_size)
        settings = {"dilation": (1, *layer.dilation), "stride": (1, *layer.stride)}
    elif isinstance(layer, nn.Conv2d):
        kernel, settings = layer.kernel_size, {"dilation": layer.dilation, "stride": layer.stride}
    else:
        return values.reshape(-1, values.shape[-1])
    return F.unfold(values, kernel, **settings).transpose(1, 2).reshape(-1, int(np.prod(kernel)) * values.shape[1])
