"""Layers with a sparse form: one file for each kind, found by itself.

A sparse form takes the place of its layer: same arguments, same outputs up to rounding, same state dict, and
`SparseWeight` children in the place of its masked weights. What is not masked is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pruning.errors import BadValue
from pruning.registry import Registry, summary_of

Masks = Mapping[str, NDArray[np.bool_]]
Build = Callable[[nn.Module, Masks], nn.Module]

LAYERS: Registry[tuple[type[nn.Module], Build]] = Registry(
    "sparse layer", "pruning.sparse.layers", listed="sparse-layers"
)


class NoSparseForm(BadValue):
    """A layer that has no sparse form here; it is kept dense, and the report says why."""


def sparse_layer(kind: type[nn.Module], *, source: str) -> Callable[[Build], Build]:
    """Register `build(layer, masks)`, which returns the sparse form of a layer of exactly this kind.

    `masks` are those of the layer's own weights, by attribute name. A layer whose options have no sparse form raises
    `NoSparseForm` with the reason.

    >>> sparse_layer(nn.Bilinear, source="nobody")(lambda layer, masks: layer)
    Traceback (most recent call last):
    pruning.errors.BadValue: <lambda> needs a docstring: its first line is what `lottery list` shows
    """

    def register(build: Build) -> Build:
        LAYERS.add(kind.__name__, (kind, build), summary_of(build), source)
        return build

    return register
