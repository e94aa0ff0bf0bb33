"""Representations: the outputs of every layer of a network for some examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from lottery.data.batches import move, sample, size
from lottery.networks.objectives.objective import call
from lottery.state.tensors import to_numpy
from lottery.studies.view import TorchView
from pruning.copies.copying import copy_module
from pruning.errors import BadValue

# At most this many numbers of one layer are held at a time: 64 MiB in single precision.
_NUMBERS = 2**24


def layer_names(tensors: Sequence[str]) -> list[str]:
    """Return the modules that own these tensors, each once, in order.

    >>> layer_names(["fc1.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"])
    ['fc1', 'lstm']
    """
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


def examples_for(view: TorchView, layers: Sequence[str], most: int, seed: int) -> tuple[Any, int]:
    """Return validation inputs on the device, and how many: fewer than `most` where a layer's output is very wide."""
    few, _ = sample(view.parts.validation, 2, seed)
    widths = each_layer(
        copy_module(view.model).to(view.device).eval(), layers, move(few, view.device), lambda x: x.shape[1]
    )
    count = max(4, min(most, _NUMBERS // max(widths.values())))
    inputs, _ = sample(view.parts.validation, count, seed)
    return move(inputs, view.device), size(inputs)


def each_layer(
    network: nn.Module, layers: Sequence[str], inputs: Any, look: Callable[[NDArray[Any]], Any]
) -> dict[str, Any]:
    """Return what `look` makes of each layer's output, flattened to [N, F], in the order of the layers.

    Args:
        network: in evaluation mode.
        layers: names of modules; those that the forward pass does not call, or whose output does not have the examples
            along its first axis, are left out.
        inputs: a batch of N examples.
        look: is given the output before the next layer runs, so that few are held at a time.

    Raises:
        BadValue: no layer is left.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> each_layer(network, ["0", "2"], torch.ones(5, 2), lambda output: output.shape)
    {'0': (5, 3), '2': (5, 1)}
    """
    count = size(inputs)
    seen: dict[str, Any] = {}

    def hook(name: str, output: Any) -> None:
        # Recurrent and attention layers return their states or weights beside the output.
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, torch.Tensor) and first.ndim > 1 and len(first) == count:
            seen[name] = look(to_numpy(first.flatten(1)))

    handles = [
        network.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: hook(name, output))
        for name in layers
    ]
    try:
        with torch.no_grad():
            call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise BadValue("no layer with a prunable weight gives an output with the examples along its first axis")
    return {name: seen[name] for name in layers if name in seen}
