"""Tensors as JAX arrays and back.

Types: JAX computes in 32 bits unless `jax_enable_x64` is set, so that int64 becomes int32 and float64 becomes float32;
bfloat16 and float16 stay.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

from es.translation.fixed import Fixed, is_fixed
from pruning.errors import BadValue


def to_jax(tree: Any) -> Any:
    """Return a pytree with its tensors and arrays as JAX arrays, copied; other leaves stay.

    64-bit types become 32-bit ones unless `jax_enable_x64` is set.

    Raises:
        BadValue: an integer that does not fit.

    >>> to_jax([torch.tensor([1, 2]), 3])
    [Array([1, 2], dtype=int32), 3]
    """
    return jax.tree.map(to_jax_array, tree)


def to_jax_array(leaf: Any) -> Any:
    """Return one array or tensor as a JAX array, in 32 bits; anything else as it is.

    >>> to_jax_array(torch.tensor([1.0, 2.0], dtype=torch.float64)).dtype, to_jax_array("a name")
    (dtype('float32'), 'a name')
    """
    if isinstance(leaf, torch.Tensor):
        # inside a trace JAX may keep the array itself, and the code may write to the tensor later
        leaf = to_numpy(leaf).copy()
    if not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if leaf.size and leaf.dtype != dtype and leaf.dtype.kind in "iu":
        low, high = leaf.min(), leaf.max()
        if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
            raise BadValue(f"integers from {low} to {high} do not fit {dtype}; JAX needs jax_enable_x64 for them")
    return jnp.array(leaf, dtype)


def require_leaves(tree: Any, what: str) -> None:
    """Refuse a pytree that holds anything but tensors, arrays and numbers.

    >>> require_leaves({"x": torch.zeros(1), "scale": 2}, "a batch")
    """
    known = (torch.Tensor, np.ndarray, np.generic, jax.Array, bool, int, float, complex)
    for leaf in jax.tree.leaves(tree):
        if not isinstance(leaf, known):
            raise BadValue(
                f"{what} holds a {type(leaf).__name__}, which evolution cannot take apart: give tensors and numbers, "
                "in tuples, lists and dictionaries"
            )


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor of any layout, on any device, as an array on the host.

    >>> to_numpy(torch.eye(2).to_sparse()).tolist(), to_numpy(torch.ones(1, dtype=torch.bfloat16)).dtype.name
    ([[1.0, 0.0], [0.0, 1.0]], 'bfloat16')
    """
    host = tensor.detach().cpu().to_dense().resolve_conj().resolve_neg().contiguous()
    return host.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if host.dtype == torch.bfloat16 else host.numpy()


def batch_to_jax(tree: Any) -> Any:
    """Return a batch as `to_jax` does, its truth values fixed: code branches on such switches.

    >>> batch_to_jax({"x": 1.5, "return_loss": True})
    {'return_loss': Fixed(value=True), 'x': 1.5}
    """
    return to_jax(jax.tree.map(lambda leaf: Fixed(leaf) if isinstance(leaf, bool) else leaf, tree))


def to_torch(tree: Any) -> Any:
    """Return a pytree with tensors and arrays as tensors of their own, on the host; int32 becomes torch's int64.

    >>> to_torch({"labels": jnp.arange(2)})
    {'labels': tensor([0, 1])}
    """

    def tensor(leaf: Any) -> Any:
        if isinstance(leaf, Fixed):
            return leaf.value
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().cpu().clone()
        if not isinstance(leaf, np.ndarray | np.generic | jax.Array):
            return leaf
        array = np.array(leaf)
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array)

    return jax.tree.map(tensor, tree, is_leaf=is_fixed)


def jax_dtype(dtype: torch.dtype) -> Any:
    """Return the type that JAX computes in for one of torch's.

    >>> jax_dtype(torch.int64)
    dtype('int32')
    """
    return jax.dtypes.canonicalize_dtype(jnp.bfloat16 if dtype == torch.bfloat16 else _NUMPY[dtype])


_NUMPY = {
    torch.bool: np.bool_,
    **{getattr(torch, name): getattr(np, name) for name in ("uint8", "uint16", "uint32", "uint64")},
    **{getattr(torch, name): getattr(np, name) for name in ("int8", "int16", "int32", "int64")},
    **{
        getattr(torch, name): getattr(np, name) for name in ("float16", "float32", "float64", "complex64", "complex128")
    },
}
