"""Which tensors of a running torch program have a value in JAX, and what it is.

A tensor is a window (sizes, strides, an offset) onto a storage, and several tensors may share one. So what was written
is kept for each storage: a tensor's own value holds until something else is written to its storage, and is then read
from there again. Thus a write through any view (`x.t()[0].add_(1)`) reaches every tensor that shares its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from es.translation.arrays import jax_dtype, to_jax_array
from pruning.errors import BadValue


@dataclass
class _Storage:
    """What JAX knows of a storage.

    Attributes:
        alive: keeps the storage's address from being given to another one.
        shape: of the numbers as they lie in memory: that of the first dense tensor, its axes by falling strides.
        numbers: all numbers of the storage in that shape.
        dtype: what they are.
        version: how often something was written.
    """

    alive: StorageWeakRef
    shape: tuple[int, ...]
    numbers: jax.Array
    dtype: torch.dtype
    version: int = 0


class Shadows:
    """The tensors that follow from what changes between calls, each with its JAX value; all others are constants."""

    def __init__(self) -> None:
        """Begin with none."""
        self._storages: dict[int, _Storage] = {}
        self._values: Any = WeakTensorKeyDictionary()  # tensor → (value, version of its storage)
        self._unknown: Any = WeakTensorKeyDictionary()  # tensor → the operation that returned it

    def __contains__(self, tensor: torch.Tensor) -> bool:
        """Say whether a tensor has a JAX value."""
        if tensor in self._values or tensor in self._unknown:
            return True
        return tensor.layout == torch.strided and _address(tensor) in self._storages

    def value(self, tensor: torch.Tensor) -> jax.Array:
        """Return a tensor's value in JAX; that of a constant is its own."""
        if tensor in self._unknown:
            raise BadValue(f"a result of {self._unknown[tensor]} has no JAX form")
        if tensor.layout != torch.strided:
            return to_jax_array(tensor)
        storage = self._storages.get(_address(tensor))
        own, version = self._values.get(tensor, (None, -1))
        if storage is None:
            return to_jax_array(tensor) if own is None else own
        if own is None or version != storage.version:
            own = self._read(tensor, storage)
            self._values[tensor] = (own, storage.version)
        return own

    def set(self, tensor: torch.Tensor, value: jax.Array) -> None:
        """Give a tensor that an operation returned its value: of a new storage, or as a view of one that is known."""
        storage = self._storages.get(_address(tensor))
        if storage is None and tensor.numel():
            storage = self._new(tensor, value)
        self._values[tensor] = (value, storage.version if storage else 0)

    def write(self, tensor: torch.Tensor, value: jax.Array, before: jax.Array | None) -> None:
        """Note that a value was written to a tensor.

        Args:
            tensor: the target.
            value: of its shape and type.
            before: all numbers of the target's storage before the write (`contents`), None where it is known here.
        """
        if not tensor.numel():
            return
        storage = self._storages.get(_address(tensor))
        if storage is None:
            if _is_whole(tensor):
                storage = self._new(tensor, value)
            else:
                assert before is not None
                storage = _Storage(_weak(tensor), before.shape, before, tensor.dtype)
                self._storages[_address(tensor)] = storage
        _check_type(tensor, storage)
        if tensor.is_conj():
            value = value.conj()
        if _is_whole(tensor) and storage.numbers.size == value.size:
            storage.numbers = value.transpose(_by_strides(tensor)).reshape(storage.shape)
        else:
            box = _box(tensor, storage.shape)
            if box is not None:
                slices, axes = box
                placed = value.transpose(axes).reshape([len(range(s.start, s.stop, s.step)) for s in slices])
                storage.numbers = storage.numbers.at[slices].set(placed)
            else:
                flat = storage.numbers.reshape(-1).at[_places(tensor).reshape(-1)].set(value.reshape(-1))
                storage.numbers = flat.reshape(storage.shape)
        storage.version += 1
        self._values[tensor] = (value.conj() if tensor.is_conj() else value, storage.version)

    def unknown(self, tensor: torch.Tensor, operation: str) -> None:
        """Note that a tensor changes between calls in a way that JAX does not know: who asks for it is refused."""
        self._unknown[tensor] = operation

    def forget(self, tensor: torch.Tensor) -> None:
        """Drop a tensor's own value, as its sizes or strides changed: it is read from its storage again."""
        self._values.pop(tensor, None)

    def contents(self, tensor: torch.Tensor) -> jax.Array | None:
        """Return all numbers of a constant's storage; None where JAX knows the storage."""
        if tensor.layout != torch.strided or not tensor.numel() or _address(tensor) in self._storages:
            return None
        if _is_whole(tensor):
            return to_jax_array(tensor).transpose(_by_strides(tensor))
        storage = tensor.untyped_storage()
        whole = torch.empty(0, dtype=tensor.dtype).set_(storage)  # pyright: ignore[reportArgumentType]
        shape = (whole.numel(),)
        base = tensor._base
        if base is not None and _is_whole(base) and base.dtype == tensor.dtype:
            shape = tuple(base.shape[axis] for axis in _by_strides(base))
        return to_jax_array(whole).reshape(shape)

    def _new(self, tensor: torch.Tensor, value: jax.Array) -> _Storage:
        if _is_whole(tensor):
            numbers = value.transpose(_by_strides(tensor))
        else:  # with gaps that nobody looks at
            count = tensor.untyped_storage().nbytes() // tensor.element_size()
            numbers = jnp.zeros(count, value.dtype).at[_places(tensor).reshape(-1)].set(value.reshape(-1))
        if tensor.is_conj():
            numbers = numbers.conj()
        storage = _Storage(_weak(tensor), numbers.shape, numbers, tensor.dtype)
        self._storages[_address(tensor)] = storage
        return storage

    def _read(self, tensor: torch.Tensor, storage: _Storage) -> jax.Array:
        dtype = jax_dtype(tensor.dtype)
        if not tensor.numel():
            return jnp.zeros(tensor.shape, dtype)
        _check_type(tensor, storage)
        box = _box(tensor, storage.shape)
        if _is_whole(tensor) and storage.numbers.size == tensor.numel():
            axes = _by_strides(tensor)
            value = storage.numbers.reshape([tensor.shape[axis] for axis in axes]).transpose(np.argsort(axes))
        elif box is not None:
            slices, axes = box
            value = storage.numbers[slices].reshape([tensor.shape[axis] for axis in axes]).transpose(np.argsort(axes))
        else:
            value = storage.numbers.reshape(-1)[_places(tensor)]
        if tensor.is_neg():
            value = -value
        return (value.conj() if tensor.is_conj() else value).astype(dtype)


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _weak(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _check_type(tensor: torch.Tensor, storage: _Storage) -> None:
    if tensor.dtype != storage.dtype:
        raise BadValue(
            f"it writes numbers as {storage.dtype} and reads their bytes as {tensor.dtype}, which has no JAX form; "
            "build the tensor from its parts, for instance with torch.complex or torch.stack"
        )


def _by_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return a tensor's axes as they lie in memory, the outermost first."""
    return tuple(sorted(range(tensor.dim()), key=lambda axis: (-tensor.stride(axis), axis)))


def _is_whole(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is its whole storage, without gaps, in any order of axes."""
    if tensor.storage_offset() or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size():
        return False
    expected = 1
    for axis in reversed(_by_strides(tensor)):
        if tensor.shape[axis] != 1 and tensor.stride(axis) != expected:
            return False
        expected *= tensor.shape[axis]
    return True


def _places(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return where in its storage each number of a tensor lies."""
    places = np.array(tensor.storage_offset())
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        places = places + (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(tensor.dim())])
    return places


def _box(tensor: torch.Tensor, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[int, ...]] | None:
    """Return a tensor as slices of its storage's array, and its axes in that array's order, if it is such a part."""
    start = np.unravel_index(int(tensor.storage_offset()), shape)
    slices = [slice(int(begin), int(begin) + 1, 1) for begin in start]
    owner: list[int] = []
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size == 1:
            owner.append(-1 - axis)
            continue
        place = _axis_of(stride, shape)
        if place is None or place in owner:
            return None
        step = stride // int(np.prod(shape[place + 1 :]))
        end = int(start[place]) + (size - 1) * step + 1
        if end > shape[place]:
            return None
        slices[place] = slice(int(start[place]), end, step)
        owner.append(place)
    return tuple(slices), tuple(sorted(range(tensor.dim()), key=lambda axis: owner[axis]))


def _axis_of(stride: int, shape: tuple[int, ...]) -> int | None:
    """Return the innermost axis along which numbers so far apart lie, if they lie along one."""
    for axis in reversed(range(len(shape))):
        apart = int(np.prod(shape[axis + 1 :]))
        if stride > 0 and stride % apart == 0 and shape[axis] > 1 and stride < apart * shape[axis]:
            return axis
    return None
