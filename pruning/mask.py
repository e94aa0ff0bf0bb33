"""The mask: for each prunable tensor, by its dotted name, which weights stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruning.errors import BadValue, MaskMismatch
from pruning.masks import file as mask_file
from pruning.masks.fitting import apply_array, fitted


@dataclass(frozen=True)
class MaskRow:
    """One line of the per-layer table: a tensor, how many of its weights stay, and out of how many."""

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int

    @property
    def density(self) -> float:
        """Fraction of this tensor's weights that stay."""
        return self.kept / self.total if self.total else 1.0


class Mask(Mapping[str, NDArray[np.bool_]]):
    """Which weights stay: a read-only mapping from tensor name to a boolean array of its shape; True keeps.

    A tensor that is absent is dense. Masks compare equal when names, shapes and values are; metadata does not count.

    Args:
        tensors: name to boolean (or 0/1) array, in the model's order.
        metadata: where the mask came from; any JSON object.

    Raises:
        BadValue: a value that is neither 0 nor 1, or no tensor at all.

    >>> mask = Mask({"fc.weight": [[1, 0], [1, 1]]})
    >>> mask.kept, mask.total, mask.density, mask.sparsity
    (3, 4, 0.75, 0.25)
    """

    def __init__(self, tensors: Mapping[str, ArrayLike], metadata: Mapping[str, Any] | None = None) -> None:
        if not tensors:
            raise BadValue("a mask needs at least one tensor")
        self._tensors = {name: _as_bool(name, value) for name, value in tensors.items()}
        self.metadata: Mapping[str, Any] = MappingProxyType(dict(metadata or {}))

    @classmethod
    def dense(cls, shapes: Mapping[str, tuple[int, ...]]) -> Mask:
        """Return the mask that keeps everything.

        >>> Mask.dense({"fc.weight": (2, 3)}).kept
        6
        """
        return cls({name: np.ones(shape, bool) for name, shape in shapes.items()})

    @classmethod
    def load(cls, path: str | Path, *, expected: str | None = None) -> Mask:
        """Read `mask.safetensors`.

        Args:
            path: the file.
            expected: the SHA-256 that it must have, where that is known.

        Raises:
            FileFormatError: anything that is not a mask file, or has other bytes than expected.
        """
        tensors, metadata = mask_file.read(Path(path), expected)
        return cls(tensors, metadata)

    def save(self, path: str | Path) -> None:
        """Write the mask file, atomically (one BOOL tensor for each name, metadata as JSON under `lottery`)."""
        mask_file.write(Path(path), self._tensors, {**self.metadata, "sparsity": self.sparsity})

    def with_metadata(self, **metadata: Any) -> Mask:
        """Return the same mask with these metadata added."""
        return Mask(self._tensors, {**self.metadata, **metadata})

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return set(self) == set(other) and all(np.array_equal(self[name], other[name]) for name in self)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[Any, ...]:
        return Mask, (self._tensors, dict(self.metadata))

    def __repr__(self) -> str:
        return f"Mask({self.kept:,} of {self.total:,} weights in {len(self)} tensors, density {self.density:.4g})"

    @property
    def kept(self) -> int:
        """How many weights stay."""
        return sum(self.counts().values())

    @property
    def total(self) -> int:
        """How many weights the mask covers."""
        return sum(array.size for array in self._tensors.values())

    @property
    def density(self) -> float:
        """Fraction of the covered weights that stay."""
        return self.kept / self.total

    @property
    def sparsity(self) -> float:
        """Fraction of the covered weights that are removed."""
        return 1.0 - self.density

    def counts(self) -> dict[str, int]:
        """Return how many weights stay in each tensor."""
        return {name: int(np.count_nonzero(array)) for name, array in self._tensors.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return each tensor's shape."""
        return {name: array.shape for name, array in self._tensors.items()}

    def layers(self) -> list[MaskRow]:
        """Return the per-layer table, one row for each tensor.

        >>> [(row.name, row.density) for row in Mask({"a": [1, 0], "b": [1, 1]}).layers()]
        [('a', 0.5), ('b', 1.0)]
        """
        counts = self.counts()
        return [MaskRow(name, array.shape, counts[name], array.size) for name, array in self._tensors.items()]

    def __and__(self, other: Mask) -> Mask:
        """Keep what both masks keep."""
        return self._combine(other, np.logical_and)

    def __or__(self, other: Mask) -> Mask:
        """Keep what either mask keeps."""
        return self._combine(other, np.logical_or)

    def intersection(self, other: Mask) -> Mask:
        """Keep what both masks keep."""
        return self & other

    def union(self, other: Mask) -> Mask:
        """Keep what either mask keeps."""
        return self | other

    def issubset(self, other: Mask) -> bool:
        """Say whether every weight kept here is also kept there (masks of one run are nested)."""
        return (self & other).kept == self.kept

    def overlap(self, other: Mask) -> float:
        """Return |A ∩ B| / |A ∪ B| of the kept weights (Jaccard index): 1 for equal masks, 0 for disjoint ones.

        >>> Mask({"a": [1, 1, 0]}).overlap(Mask({"a": [0, 1, 1]}))
        0.3333333333333333
        """
        union = (self | other).kept
        return (self & other).kept / union if union else 1.0

    def hamming(self, other: Mask) -> float:
        """Return the fraction of positions on which the two masks differ.

        >>> Mask({"a": [1, 1, 0, 0]}).hamming(Mask({"a": [0, 1, 1, 0]}))
        0.5
        """
        return self._combine(other, np.not_equal).kept / self.total

    def fit(self, shapes: Mapping[str, tuple[int, ...]]) -> Mask:
        """Return this mask under the names of a model, checked against its shapes.

        Wrapper prefixes (`module.`, `_orig_mod.`) are understood on either side.

        Args:
            shapes: the model's tensor shapes by name.

        Raises:
            MaskMismatch: a name that the model lacks (with the closest ones) or another shape.
        """
        return Mask(fitted(self, shapes), self.metadata)

    def apply(self, target: Any) -> Any:
        """Set the removed weights of `target` to 0.

        Args:
            target: a mapping of NumPy arrays (returns a new dict), a `torch.nn.Module` (changed in place and
                returned) or any other JAX pytree (returns a new tree).

        Raises:
            MaskMismatch: names or shapes that do not fit.

        >>> Mask({"w": [1, 0]}).apply({"w": np.array([2.0, 3.0]), "b": np.array([1.0])})
        {'w': array([2., 0.]), 'b': array([1.])}
        """
        if hasattr(target, "named_parameters"):
            from pruning.masks.torch_masking import apply_mask

            return apply_mask(target, self)
        if isinstance(target, Mapping) and all(isinstance(value, np.ndarray) for value in target.values()):
            keeps = fitted(self, {name: value.shape for name, value in target.items()})
            return {name: apply_array(value, keeps.get(name)) for name, value in target.items()}
        from pruning.pytrees import apply_mask as apply_to_tree

        return apply_to_tree(target, self)

    def _combine(self, other: Mask, operation: np.ufunc) -> Mask:
        if self.shapes() != other.shapes():
            different = sorted(set(self.shapes().items()) ^ set(other.shapes().items()))
            raise MaskMismatch(f"the two masks cover different tensors (first difference: {different[0][0]!r})")
        return Mask({name: operation(self[name], other[name]) for name in self})


def check_not_single(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `BadValue` for a prunable tensor without axes: of a single number there is no part to remove.

    >>> check_not_single({"fc.weight": (2, 3), "temperature": ()})
    Traceback (most recent call last):
    pruning.errors.BadValue: prunable: 'temperature' is a single number and cannot be pruned; name it in `skip`
    """
    single = [name for name, shape in shapes.items() if shape == ()]
    if single:
        raise BadValue(f"prunable: {single[0]!r} is a single number and cannot be pruned; name it in `skip`")


def _as_bool(name: str, value: Any) -> NDArray[np.bool_]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise BadValue(f"the mask of {name!r} holds values other than 0 and 1")
    array = np.array(array, dtype=bool, order="C", copy=True)
    array.setflags(write=False)
    return array
