"""The arrays of a network as initializers see them, where nothing but their use in a forward pass is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pruning.starts.tensor import Tensor, layout_of
from pruning.starts.weight import Kind, Place
from pruning.uses.uses import TABLE, Uses

Keep = Mapping[str, NDArray[np.bool_]]


def followed_tensors(shapes: Mapping[str, tuple[int, ...]], keep: Keep, uses: Uses) -> list[Tensor]:
    """Return those arrays that products multiply with activations along known axes, and those that a mask covers.

    Args:
        shapes: of all arrays, by name.
        keep: what a mask keeps, by name; arrays that it does not name are whole.
        uses: how a forward pass uses the arrays.

    >>> from pruning.uses.axes import Axes
    >>> uses = Uses({"w": Axes((3, 4), (1,), (0,))}, ("w",), frozenset({"w"}), frozenset({"w"}))
    >>> followed_tensors({"w": (3, 4)}, {}, uses)[0].weights()[0].shape
    (4, 3)
    """
    found: list[Tensor] = []
    for name, shape in shapes.items():
        axes = uses.axes.get(name)
        if axes is None or not axes.inputs or not (name in keep or name in uses.factors):
            continue
        kept = np.asarray(keep[name]) if name in keep else np.ones(shape, bool)
        found.append(
            Tensor(
                name,
                kept,
                layout_of(axes),
                (kind_of(name, uses),),
                activation=activation_of(name, uses),
                place=place_of(name, uses),
            )
        )
    return found


def kind_of(name: str, uses: Uses) -> Kind:
    """Return what a weight does, by its use: one that has taps is a convolution's."""
    if uses.apart.get(name) == TABLE:
        return "embedding"
    axes = uses.axes[name]
    return "convolution" if len(axes.shape) > len(axes.outputs) + len(axes.inputs) else "linear"


def activation_of(name: str, uses: Uses) -> str | None:
    """Return the function that a weight's result goes through; None where it was not found."""
    return uses.activations.get(name)


def place_of(name: str, uses: Uses) -> Place | None:
    """Return where a weight stands in its network; None where the pass could not be followed."""
    if name not in uses.order:
        return None
    feeds, in_degree = uses.feeds.get(name, ()), uses.in_degrees.get(name, 1)
    return Place(uses.order.index(name), feeds, in_degree, last=name in uses.outputs)
