"""The layers of one network that train their survivors alone.

    dense weights ──▶ values of the survivors ──▶ steps ──▶ dense weights, whenever somebody looks

A sparse layer takes the place of its dense one while a step is taken, and at no other time: what looks at the network
between steps (evaluations, snapshots, averages, estimators) sees the network that was given, under its own names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning.mask import Mask
from pruning.sparse.choosing.choosing import sparse_parts
from pruning.sparse.network.owners import Owned
from pruning.sparse.weights.weight import Sparse

BACKEND = "compiled"
"""The products that sparse layers train by."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Place:
    owner: nn.Module
    name: str
    dense: nn.Module
    sparse: nn.Module


class Survivors:
    """Sparse layers of one network, ready to take their places.

    Args:
        model: masked, with its dense layers.
        layers: those that are to be sparse, each with its sparse form; none is `model` itself.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Owned]) -> None:
        self._model = model
        self._places = [_place(model, layer) for layer in layers]
        self.parts = {name: part for layer in layers for name, part in parts_of(layer).items()}
        self._weights = {name: model.get_parameter(name) for name in self.parts}
        self._stale = False
        for part in self.parts.values():
            part.backend = BACKEND

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Have the sparse layers in their places while the block runs, which may change their values."""
        for place in self._places:
            place.owner._modules[place.name] = place.sparse
        try:
            yield
        finally:
            for place in self._places:
                place.owner._modules[place.name] = place.dense
            self._stale = True

    @torch.no_grad()
    def write(self) -> None:
        """Write the values into the dense weights, where they are not there yet; removed weights are 0."""
        if not self._stale:
            return
        for name, weight in self._weights.items():
            weight.copy_(self.parts[name].dense())
        self._stale = False

    def rest(self, mask: Mask) -> dict[str, NDArray[np.bool_]]:
        """Return the masks of the weights that stay dense."""
        return {name: keep for name, keep in mask.items() if name not in self.parts}

    def renamed(self, by_name: Mapping[str, T]) -> dict[str, T]:
        """Return what belongs to some parameters under the names that these have while sparse layers are at work."""
        of = {id(part.values): name for name, part in self.parts.items()}
        with self.at_work():
            new = {of.get(id(parameter), name): name for name, parameter in self._model.named_parameters()}
        return {new[name]: value for name, value in by_name.items()}

    def gradients(self) -> dict[str, torch.Tensor | None]:
        """Return the gradient of every parameter, dense, under its own name; None where there is none."""
        found = {name: parameter.grad for name, parameter in self._model.named_parameters()}
        for name, part in self.parts.items():
            found[name] = part.spread(part.values.grad) if part.values.grad is not None else None
        return found


def parts_of(layer: Owned) -> dict[str, Sparse]:
    """Return the sparse weights of a layer's sparse form, by the names of the dense ones in the network.

    >>> import numpy as np
    >>> from pruning.sparse.network.owners import owners
    >>> network = nn.Sequential(nn.Linear(2, 1))
    >>> [list(parts_of(layer)) for layer in owners(network, Mask({"0.weight": np.eye(1, 2, dtype=bool)}))]
    [['0.weight']]
    """
    if layer.form is None:
        return {}
    return {layer.full_name(own): part for own, part in sparse_parts(layer.form).items()}


def _place(model: nn.Module, layer: Owned) -> _Place:
    owner, _, name = layer.path.rpartition(".")
    assert layer.form is not None
    return _Place(model.get_submodule(owner), name, layer.layer, layer.form)
