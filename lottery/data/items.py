"""Data that is read whole into memory: the items of a data set one by one, or arrays in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from lottery.data.arrays import as_inputs, as_targets
from lottery.data.batch import is_divisible, leaves, mapped, split_batch
from lottery.data.part import Tensors
from lottery.data.passes import repeats
from lottery.state.randomness import seeded_everywhere
from pruning.calls.users_code import users_code
from pruning.errors import DataError, said

_INSTEAD = "wrap it in a DataLoader (its collate_fn may pad), which is used as given"


def is_items(value: Any) -> bool:
    """Say whether something is a data set: PyTorch's, a list of dictionaries, or what is indexed as they are.

    >>> is_items([{"x": 1}]), is_items(([1, 2], [0, 1])), is_items({"x": [1, 2]})
    (True, False, False)
    """
    if isinstance(value, Dataset):
        return True
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    indexed = all(callable(getattr(type(value), name, None)) for name in ("__len__", "__getitem__"))
    return indexed and not isinstance(value, Mapping | str | tuple | range) and not hasattr(value, "shape")


def read_items(dataset: Any, name: str, adjective: str) -> Tensors:
    """Read a data set once; it then lives on the device.

    Args:
        dataset: gives an item for every index: a pair of an input and a label, or a dictionary. Lists of numbers in a
            dictionary are vectors.
        name: the name of the part, for errors.
        adjective: of the part, for errors.

    Raises:
        DataError: items that are not of one shape, hold text, or are others each time.

    >>> found = read_items([{"x": [1.0, 2.0], "y": 0}, {"x": [3.0, 4.0], "y": 1}], "train", "training")
    >>> found.inputs["x"].tolist(), found.inputs["y"].tolist()
    ([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    """
    if not hasattr(dataset, "__len__"):
        raise DataError(f"{name}: a Dataset without a length; wrap it in a DataLoader")
    with users_code(f"the {adjective} Dataset", DataError):
        length = len(dataset)
        with seeded_everywhere(0):
            random = not repeats(lambda: (dataset[index] for index in range(length)))
        items = [dataset[index] for index in range(length)]
    if not items:
        raise DataError(f"{name}: the Dataset holds no examples")
    try:
        batch = default_collate([_with_vectors(item) if isinstance(item, Mapping) else item for item in items])
    except (TypeError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{name}: the items of this Dataset cannot be stacked ({said(error)}): {_INSTEAD}") from error
    if random:
        raise DataError(
            f"{name}: this Dataset returns something else each time (a random transform?); "
            "wrap it in a DataLoader, which is used as given"
        )
    return in_memory(batch, name)


def in_memory(batch: Any, name: str) -> Tensors:
    """Return a whole part that was given as one batch, checked.

    Raises:
        DataError: anything but arrays of numbers with the examples along the first axis.
    """
    inputs, targets = split_batch(batch)
    if isinstance(inputs, torch.Tensor) and isinstance(targets, torch.Tensor):
        return Tensors(as_inputs(inputs, name), as_targets(targets, name))
    found = mapped(lambda leaf: _checked(leaf, name), batch)
    odd = sorted({type(leaf).__name__ for leaf in leaves(found) if not isinstance(leaf, torch.Tensor)})
    if odd:
        raise DataError(f"{name}: what is read into memory must be numbers, not {', '.join(odd)}: {_INSTEAD}")
    if not is_divisible(found):
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves(found))
        raise DataError(f"{name}: the arrays have not the same number of examples along their first axis ({shapes})")
    inputs, targets = split_batch(found)
    if isinstance(targets, torch.Tensor):
        targets = as_targets(targets, name)
    return Tensors(inputs, targets)


def _checked(leaf: Any, name: str) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc":
        leaf = torch.from_numpy(np.array(leaf))
    if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
        return as_inputs(leaf, name)
    return leaf


def _with_vectors(item: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return an item with its lists of numbers as tensors: stacking would take each entry of a list for a field."""
    return {key: torch.tensor(value) if _is_numbers(value) else value for key, value in item.items()}


def _is_numbers(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, bool | int | float) or _is_numbers(item) for item in value)
