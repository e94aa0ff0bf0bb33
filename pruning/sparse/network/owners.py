"""Which layer each masked tensor belongs to, and which layers have no sparse form, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pruning.mask import Mask
from pruning.sparse.forms import sparse_form
from pruning.sparse.layers import LAYERS, NoSparseForm


@dataclass(frozen=True)
class Owned:
    """A layer that owns masked tensors.

    Attributes:
        path: the path of the layer in the network; empty for the network itself.
        layer: the layer, masked and dense.
        masks: the masks of its tensors, by their names in the layer.
        form: its sparse form, a module that takes its place, or None.
        reason: why there is no sparse form; empty where there is one.
    """

    path: str
    layer: nn.Module
    masks: Mapping[str, NDArray[np.bool_]]
    form: nn.Module | None
    reason: str

    def full_name(self, weight: str) -> str:
        """Return the name of one of the layer's tensors in the network."""
        return f"{self.path}.{weight}" if self.path else weight


def owners(network: nn.Module, mask: Mask) -> list[Owned]:
    """Return the layers that own masked tensors, in the order of the mask.

    A tensor belongs to the outermost layer that has a sparse form: the projections of an attention belong to the
    attention. A tensor of any other module belongs to that module, which stays dense.

    Args:
        network: masked; its layers are neither copied nor changed.
        mask: fits the network.

    >>> [(o.path, list(o.masks), o.reason) for o in owners(nn.Linear(2, 1), Mask({"weight": [[1, 0]]}))]
    [('', ['weight'], '')]
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    uses = Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))
    kinds = tuple(entry.value[0] for entry in LAYERS)
    grouped: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for name in mask:
        steps = name.split(".")[:-1]
        paths = [".".join(steps[:depth]) for depth in range(len(steps) + 1)]
        path = next((p for p in paths if type(modules[p]) in kinds), paths[-1])
        grouped.setdefault(path, {})[name[len(path) + 1 :] if path else name] = mask[name]
    return [_owned(path, modules[path], masks, uses) for path, masks in grouped.items()]


def _owned(path: str, layer: nn.Module, masks: dict[str, NDArray[np.bool_]], uses: Counter[int]) -> Owned:
    parameters = dict(layer.named_parameters())
    tied = [name for name in masks if uses[id(parameters[name])] > 1]
    if tied:
        return Owned(path, layer, masks, None, f"{tied[0]!r} is tied to another layer")
    try:
        return Owned(path, layer, masks, sparse_form(layer, masks), "")
    except NoSparseForm as error:
        return Owned(path, layer, masks, None, str(error))
