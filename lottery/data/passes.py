"""What a loader gives: one pass over it as a hash, item by item in its order, and whether a second pass is the same."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from lottery.state.identity import identify, short_hash
from lottery.state.tensors import digest, to_numpy

Pass = Callable[[], Iterable[Any]]
# This many batches show whether a loader repeats itself.
FIRST = 2


def pass_digest(once: Pass) -> str:
    """Return a hash of every batch of one pass, in their order: of data, sampler, transforms and collation together.

    >>> pass_digest(lambda: [torch.ones(2), torch.zeros(2)]) == pass_digest(lambda: [torch.zeros(2), torch.ones(2)])
    False
    """
    total = hashlib.sha256()
    for batch in once():
        total.update(bytes.fromhex(identify_values(batch)))
    return total.hexdigest()


def repeats(once: Pass) -> bool:
    """Say whether the first batches are the same in two passes.

    >>> numbers = iter(range(9))
    >>> repeats(lambda: numbers), repeats(lambda: [1, 2])
    (False, True)
    """
    first, second = ([identify_values(batch) for batch in itertools.islice(once(), FIRST)] for _ in range(2))
    return first == second


def identify_values(value: Any) -> str:
    """Return a SHA-256 of a pytree's values: tensors, arrays, numbers, texts, and other objects by their content.

    >>> identify_values({"a": torch.ones(2)}) == identify_values({"a": torch.zeros(2)})
    False
    """
    if isinstance(value, torch.Tensor) and value.layout is torch.strided:
        return digest({"": to_numpy(value)})
    if isinstance(value, tuple | list):
        return short_hash([type(value).__name__, *map(identify_values, value)], length=64)
    if isinstance(value, Mapping):
        return short_hash([f"{key} {identify_values(item)}" for key, item in value.items()], length=64)
    return short_hash([identify(value)], length=64)
