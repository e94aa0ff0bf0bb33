"""The space that evolution searches: one coordinate for every weight that is trained and survives.

    parameters {name: array}  ──pack──▶  vector [D]  ──unpack──▶  parameters, removed weights exactly 0

A population is [P, D]: neither it nor the strategy's state ever holds a removed weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pruning.jobs import Params
from pruning.mask import Mask


@dataclass(frozen=True)
class Space:
    """The evolved parameters laid end to end, before any is removed. Static: the same for every mask of a network.

    A complex parameter is two real ones: its real and imaginary parts along a last axis of their own.

    Attributes:
        names: the names of the evolved parameters, in the model's order.
        shapes: theirs, of complex ones with that last axis.
        dtypes: theirs as JAX computes with them (float64 becomes float32); a vector is always float32.
        halved: names of the complex ones.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    halved: frozenset[str] = frozenset()

    @classmethod
    def of(cls, params: Params, evolved: tuple[str, ...]) -> Space:
        """Return the space of these parameters of a network."""
        arrays = [_halves(params[name]) for name in evolved]
        dtypes = [str(jax.dtypes.canonicalize_dtype(a.dtype)) for a in arrays]
        halved = frozenset(name for name in evolved if np.iscomplexobj(params[name]))
        return cls(evolved, tuple(a.shape for a in arrays), tuple(dtypes), halved)

    @property
    def size(self) -> int:
        """Number of weights, removed ones included."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each parameter begins."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return tuple(np.cumsum([0, *sizes[:-1]]).tolist())


def positions(space: Space, mask: Mask) -> NDArray[np.int32]:
    """Return where the survivors lie: [D] int32, ascending positions in the space.

    Every evolved parameter that the mask does not name survives whole.

    >>> space = Space.of({"w": np.zeros((2, 2), "float32"), "b": np.zeros(1, "float32")}, ("w", "b"))
    >>> positions(space, Mask({"w": [[1, 0], [0, 1]]})).tolist()
    [0, 3, 4]
    """
    kept = [
        np.flatnonzero(_kept(mask[name], shape) if name in mask else np.ones(shape, bool)) + offset
        for name, shape, offset in zip(space.names, space.shapes, space.offsets, strict=True)
    ]
    return np.concatenate(kept).astype(np.int32)


def pack(space: Space, where: NDArray[np.int32], params: Params) -> NDArray[np.float32]:
    """Return the survivors' values, [D] float32."""
    flat = np.concatenate([np.asarray(_halves(params[name]), np.float32).ravel() for name in space.names])
    return flat[where]


def unpack(space: Space, where: jax.Array | NDArray[np.int32], vector: jax.Array) -> dict[str, jax.Array]:
    """Return the parameters that a vector [D] stands for, in their own shapes and types; removed weights are 0.

    Works under `jit` and `vmap`.

    >>> space = Space.of({"w": np.zeros((2, 2), "float32")}, ("w",))
    >>> unpack(space, np.array([0, 3]), jnp.array([5.0, 7.0]))["w"].tolist()
    [[5.0, 0.0], [0.0, 7.0]]
    """
    flat = jnp.zeros(space.size, vector.dtype).at[where].set(vector, unique_indices=True, indices_are_sorted=True)
    return {
        name: flat[offset : offset + math.prod(shape)].reshape(shape).astype(dtype)
        for name, shape, dtype, offset in zip(space.names, space.shapes, space.dtypes, space.offsets, strict=True)
    }


def spread(space: Space, where: NDArray[np.int32], vector: Any) -> dict[str, NDArray[Any]]:
    """Return a vector [D] as host arrays by name, with 0 for removed weights; float32 whatever the parameter's type.

    Those of complex parameters are complex64.
    """
    flat = np.zeros(space.size, np.float32)
    flat[where] = np.asarray(vector, np.float32)
    found = {
        name: flat[offset : offset + math.prod(shape)].reshape(shape)
        for name, shape, offset in zip(space.names, space.shapes, space.offsets, strict=True)
    }
    return {name: v.view(np.complex64)[..., 0] if name in space.halved else v for name, v in found.items()}


def by_tensor(space: Space, values: Mapping[str, float]) -> NDArray[np.float32]:
    """Return one value for each weight of the space, by the name of its parameter; 1 where none is named.

    >>> space = Space.of({"w": np.zeros((2, 2), "float32"), "b": np.zeros(1, "float32")}, ("w", "b"))
    >>> by_tensor(space, {"w": 0.5}).tolist()
    [0.5, 0.5, 0.5, 0.5, 1.0]
    """
    sizes = [math.prod(shape) for shape in space.shapes]
    each = [np.full(size, values.get(name, 1.0)) for name, size in zip(space.names, sizes, strict=True)]
    return np.concatenate(each).astype(np.float32)


def beside_weights(
    space: Space, params: Params, mask: Mask, sigma: float, factors: Mapping[str, float]
) -> dict[str, float]:
    """Return how large a standard deviation is beside those of the weights of each tensor: sigma / std(w).

    Args:
        space: the evolved parameters.
        params: the weights at the start.
        mask: removed weights do not count.
        sigma: the standard deviation of the search.
        factors: by what it is multiplied, by name.

    Returns:
        By name; parameters of one value only, or of none, are not there.

    >>> space = Space.of({"w": np.array([1.0, -1.0, 5.0]), "b": np.zeros(2)}, ("w", "b"))
    >>> beside_weights(space, {"w": np.array([1.0, -1.0, 5.0]), "b": np.zeros(2)}, Mask({"w": [1, 1, 0]}), 0.5, {})
    {'w': 0.5}
    """
    live = {name: params[name][mask[name]] if name in mask else params[name] for name in space.names}
    spreads = {name: float(np.std(values)) if values.size else 0.0 for name, values in live.items()}
    return {name: sigma * factors.get(name, 1.0) / std for name, std in spreads.items() if std > 0}


def replaced(params: Params, arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return `params` with some arrays replaced, each in the type that it had."""
    return {name: np.asarray(arrays.get(name, value)).astype(value.dtype) for name, value in params.items()}


def _halves(array: NDArray[Any]) -> NDArray[Any]:
    return np.stack([np.real(array), np.imag(array)], axis=-1) if np.iscomplexobj(array) else array


def _kept(keep: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a mask for what has both halves of every element."""
    return keep if keep.shape == shape else np.repeat(keep[..., None], 2, axis=-1)
