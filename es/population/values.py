"""What a value of the network can be while a whole population runs through it.

A plain array is shared by all members. The other two depend on the member:

    Weight    an evolved parameter that nothing has needed as numbers yet: for each entry, its column in the population
    Members   one array for each member, its axes stored in whatever order suits the operation that made it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

MEMBER = -1
"""Stands for the population axis among the axes of a value."""


@dataclass(frozen=True)
class Members:
    """One array for each member, stored as one array.

    Attributes:
        data: all members; its dimension `i` is the value's axis `order[i]`.
        order: a permutation of `MEMBER, 0, 1, …`. Axes are moved by renaming them here, not in memory.
    """

    data: jax.Array
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape for one member."""
        sizes = dict(zip(self.order, self.data.shape, strict=True))
        return tuple(sizes[axis] for axis in range(len(self.order) - 1))

    @property
    def ndim(self) -> int:
        """Number of axes for one member."""
        return len(self.order) - 1

    def dimension(self, axis: int) -> int:
        """Return the dimension of `data` that holds an axis."""
        return self.order.index(axis)

    def ordered(self, order: Sequence[int]) -> jax.Array:
        """Return the data with its dimensions in this order of axes."""
        return _transposed(self.data, [self.order.index(axis) for axis in order])


@dataclass(frozen=True)
class Weight:
    """An evolved parameter, or a rearrangement of one, not yet made into numbers.

    Attributes:
        slots: of the shape for one member, int; the column of the population that holds each entry, -1 for removed.
        casts: the types that the numbers pass through, in this order.
    """

    slots: NDArray[np.int32]
    casts: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape for one member."""
        return self.slots.shape

    @property
    def ndim(self) -> int:
        """Number of axes for one member."""
        return self.slots.ndim


Value = jax.Array | np.ndarray | Members | Weight


def is_shared(value: Value) -> TypeGuard[jax.Array | np.ndarray]:
    """Tell whether all members have the same value.

    >>> is_shared(np.ones(2)), is_shared(Weight(np.array([0, 1]), ()))
    (True, False)
    """
    return not isinstance(value, (Members, Weight))


def shape_of(value: Value) -> tuple[int, ...]:
    """Return the shape for one member.

    >>> shape_of(np.ones((2, 3))), shape_of(Members(jnp.ones((5, 2, 3)), canonical(2)))
    ((2, 3), (2, 3))
    """
    return value.shape


def canonical(ndim: int) -> tuple[int, ...]:
    """Return the order with the population first and the rest as for one member.

    >>> canonical(2) == (MEMBER, 0, 1)
    True
    """
    return (MEMBER, *range(ndim))


def members_of(weight: Weight, population: jax.Array) -> Members:
    """Return the values of a weight for every member, [P, …]; removed entries are 0.

    A weight of which nothing is removed is a slice of the population, never a gather: its axes keep the order that
    they have there. A gather is used rather than a scatter, which runs one entry at a time on a CPU.

    Args:
        weight: which columns of the population it is made of.
        population: [P, D].
    """
    slots, count = weight.slots, population.shape[0]
    by_stride = _storage_order(slots)
    stored = slots.transpose(by_stride)
    first = int(stored.flat[0]) if stored.size else 0
    # A first entry that is removed (-1) before survivors 0, 1, … only looks like a run of columns.
    if slots.size and first >= 0 and np.array_equal(stored.ravel(), np.arange(first, first + slots.size)):
        values = population[:, first : first + slots.size].reshape(count, *stored.shape)
        return Members(_cast(values, weight.casts), (MEMBER, *by_stride))
    kept = slots[slots >= 0]
    if not kept.size:
        return Members(_cast(jnp.zeros((count, *slots.shape), population.dtype), weight.casts), canonical(slots.ndim))
    low, high = int(kept.min()), int(kept.max()) + 1
    columns = _cast(population[:, low:high], weight.casts)
    columns = jnp.concatenate([columns, jnp.zeros((count, 1), columns.dtype)], axis=1)
    index = np.where(slots < 0, high - low, slots - low)
    return Members(columns.at[:, index].get(mode="promise_in_bounds"), canonical(slots.ndim))


def as_members(value: Value, population: jax.Array) -> Members:
    """Return a value that depends on the member as numbers.

    >>> population = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> as_members(Weight(np.array([1, -1, 0]), ()), population).data.tolist()
    [[2.0, 0.0, 1.0], [4.0, 0.0, 3.0]]
    """
    assert isinstance(value, (Members, Weight))
    return members_of(value, population) if isinstance(value, Weight) else value


def aligned(value: Value, order: Sequence[int], population: jax.Array) -> jax.Array:
    """Return a value with its dimensions in this order of axes; the population axis has size 1 if it is shared."""
    if is_shared(value):
        array = jnp.asarray(value)
        if not array.ndim:
            return array
        moved = _transposed(array, [axis for axis in order if axis != MEMBER])
        return jnp.expand_dims(moved, list(order).index(MEMBER))
    members = as_members(value, population)
    return members.ordered(order) if members.ndim else members.data.reshape(_member_only(members, order))


def front(value: Value, population: jax.Array) -> tuple[jax.Array, int | None]:
    """Return a value as `jax.vmap` wants it: with the population first, and which axis to map (None if shared)."""
    if is_shared(value):
        return jnp.asarray(value), None
    members = as_members(value, population)
    return members.ordered(canonical(members.ndim)), 0


def size(shape: Sequence[int]) -> int:
    """Return the number of entries of a shape."""
    return math.prod(shape)


def _member_only(members: Members, order: Sequence[int]) -> tuple[int, ...]:
    return tuple(members.data.size if axis == MEMBER else 1 for axis in order)


def _transposed(array: jax.Array, permutation: Sequence[int]) -> jax.Array:
    return array if list(permutation) == list(range(array.ndim)) else jnp.transpose(array, permutation)


def _storage_order(slots: NDArray[np.int32]) -> tuple[int, ...]:
    """Return the axes from the one that moves furthest through the population to the one that moves least."""
    if not slots.size:
        return tuple(range(slots.ndim))
    origin = (0,) * slots.ndim
    steps = [
        int(slots[(*origin[:axis], 1, *origin[axis + 1 :])]) - int(slots[origin]) if length > 1 else 0
        for axis, length in enumerate(slots.shape)
    ]
    return tuple(sorted(range(slots.ndim), key=lambda axis: -abs(steps[axis])))


def _cast(array: jax.Array, casts: Sequence[str]) -> jax.Array:
    for dtype in casts:
        array = array.astype(dtype)
    return array
