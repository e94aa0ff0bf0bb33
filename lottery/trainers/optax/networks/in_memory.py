"""Parts of a data set in memory: a `DataLoader` is read once, and its examples are drawn like all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lottery.data.batch import form, is_divisible, joined, leaves, size
from lottery.data.part import Loader, Part, Tensors
from lottery.data.parts import Parts
from pruning.errors import DataError


def in_memory(parts: Parts, batch_size: int, seed: int) -> tuple[Parts, int]:
    """Return the parts with every `DataLoader` read, and the examples of a step: a `DataLoader` brings its own.

    Raises:
        DataError: a `DataLoader` whose batches cannot be one array, or that gives something else each time.
    """
    if isinstance(parts.train, Loader):
        batch_size = size(next(parts.train.batches(seed, DataError)))
    test = None if parts.test is None else _read(parts.test, seed)
    read = replace(parts, train=_read(parts.train, seed), validation=_read(parts.validation, seed), test=test)
    return read, min(batch_size, len(read.train))


def _read(part: Part, seed: int) -> Tensors:
    if not isinstance(part, Loader):
        return part
    if part.unsure:
        raise DataError(
            f"trainer 'optax' reads {part.what} into memory once, and it gives something else each time it is read: "
            "use trainer 'gd', or give arrays"
        )
    batches = list(part.batches(seed, DataError))
    why = None
    if not all(map(is_divisible, batches)) or not all(_is_plain(leaf) for leaf in leaves(batches[0])):
        why = "hold more than tensors with the examples along the first axis"
    elif len({form(batch) for batch in batches}) > 1:
        why = "differ in their shapes: pad all examples to one length"
    if why is not None:
        raise DataError(
            f"trainer 'optax' reads {part.what} into memory as one batch, and its batches {why}; or use trainer 'gd'"
        )
    inputs, targets = joined(batches)
    return Tensors(inputs, targets)


def _is_plain(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | bool)
