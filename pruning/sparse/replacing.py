"""Sparse layers in the place of dense ones: every masked layer of a network is decided in one run of an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing import Choice, Undecided, sparse_parts
from pruning.sparse.owners import Owned, owners


@dataclass(frozen=True)
class Layer:
    """A masked tensor after the choice.

    Attributes:
        name: of the tensor in the network.
        kind: of the layer that owns it.
        shape: of the tensor.
        kept: how many weights stay.
        backend: what multiplies; `dense` where the layer stayed as it was.
        choice: of its layer.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    kept: int
    backend: str
    choice: Choice

    @property
    def density(self) -> float:
        """Fraction of the tensor's weights that stay."""
        total = 1
        for length in self.shape:
            total *= length
        return self.kept / total if total else 1.0


def replace_layers(
    network: nn.Module, mask: Mask, example: Sequence[Any], choosing: Choosing, training: bool
) -> tuple[nn.Module, list[Layer]]:
    """Put sparse layers into a network, in place, wherever one wins; return the network and what was chosen.

    Layers are decided in the order in which the example runs through them, each on what it really gets there: the
    choice of one layer decides how the next one's inputs lie in memory.

    Args:
        network: masked, in evaluation mode.
        mask: fits the network.
        example: the arguments of one call.
        choosing: how to choose.
        training: whether layers are timed with their backward pass.

    Raises:
        BadValue: an example that the network does not take.
    """
    found = owners(network, mask)
    undecided: dict[str, Undecided] = {}
    for owned in found:
        if owned.form is not None:
            undecided[owned.path] = Undecided(owned.path, owned.layer, owned.form, choosing, training)
            network = put(network, owned.path, undecided[owned.path])
    with torch.set_grad_enabled(training):
        network(*example)
    for path, case in undecided.items():
        network = put(network, path, case.winner)
    return network, [row for owned in found for row in _rows(owned, undecided.get(owned.path))]


def put_layers(network: nn.Module, mask: Mask, backends: Mapping[str, str]) -> nn.Module:
    """Put sparse layers with these backends into a network, in place, and return it.

    Args:
        network: masked.
        mask: fits the network.
        backends: of each sparse tensor, by its name in the network; a layer without any stays dense.
    """
    for owned in owners(network, mask):
        if owned.form is None:
            continue
        chosen = {name: backends.get(owned.full_name(name)) for name in sparse_parts(owned.form)}
        if all(backend is None for backend in chosen.values()):
            continue
        for name, part in sparse_parts(owned.form).items():
            part.backend = chosen[name] or "dense"
        network = put(network, owned.path, owned.form)
    return network


def put(network: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """Put a layer into a network, in place; the network itself is replaced where the path is empty."""
    if not path:
        return layer
    network.set_submodule(path, layer)
    return network


def run_example(network: nn.Module, example: Sequence[Any]) -> Any:
    """Return what a network makes of an example; raises `BadValue` where it does not take it."""
    try:
        with torch.no_grad():
            return network(*example)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        shapes = ", ".join(f"{list(a.shape)} {a.dtype}" if isinstance(a, torch.Tensor) else repr(a) for a in example)
        raise BadValue(
            f"{type(network).__name__} does not take the example ({shapes}): {str(error).splitlines()[0]}"
        ) from error


def _rows(owned: Owned, case: Undecided | None) -> list[Layer]:
    choice = case.choice if case is not None else Choice({}, None, None, owned.reason)
    choice = choice or Choice({}, None, None, "took no part in the example")
    return [
        Layer(
            owned.full_name(name),
            type(owned.layer).__name__,
            keep.shape,
            int(keep.sum()),
            choice.backends.get(name, "dense"),
            choice,
        )
        for name, keep in owned.masks.items()
    ]
