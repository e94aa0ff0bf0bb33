"""Loaders that evolution reads into memory, and whether their batches must stay as they are.

Evolution draws its own minibatches from all examples. Where the model, the loss or the metric looks at the other
examples of a batch (every pair of a batch is compared), that is another task than the loader's: its batches are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import torch
from torch.utils.data import DataLoader

from es.tasks.supervised import KeptBatches
from lottery.data.batch import chunks, form, is_divisible, joined, leaves, mapped, rows, size
from lottery.data.parts import Loader, Part, Parts, Tensors
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.objective import Objective
from lottery.networks.sources.source import ModelSource
from pruning.errors import DataError, LotteryError

MeasureExamples = Callable[[Any, int], tuple[float, float]]
# Rounding may change a loss by this fraction where more examples are computed at once.
CLOSE = 1e-3
CLOSE_IN_HALF_PRECISION = 5e-2


@dataclass(frozen=True)
class InMemory:
    """The parts of a search in memory.

    Attributes:
        parts: all of them `Tensors`.
        sizes: of every part that was a `DataLoader`, how many examples each batch had.
    """

    parts: Parts
    sizes: Mapping[str, Sequence[int]]

    def kept(self, measure: MeasureExamples) -> KeptBatches | None:
        """Return the loaders' batches where it matters which examples share one; None where it does not.

        Args:
            measure: `measure(examples, at_once)` returns loss and metric over examples, `at_once` of them at a time.

        Raises:
            DataError: it matters, and the batches of a part have different sizes.
        """
        several = next((name for name in self.sizes if len(self.sizes[name]) > 1), None)
        if several is None:
            return None
        part = getattr(self.parts, several)
        if not matters(measure, (part.inputs, part.targets), self.sizes[several][0]):
            return None
        known = {name: common_size(sizes, f"the {name} part") for name, sizes in self.sizes.items()}
        other = known.get("train", known[several])
        return KeptBatches(*(known.get(name, other) for name in ("train", "validation", "test")))


def in_memory(parts: Parts, seed: int) -> InMemory:
    """Return the parts with every `DataLoader` read once, in the order that its seed gives.

    Raises:
        DataError: batches that cannot be joined.
    """
    sizes: dict[str, list[int]] = {}

    def read(name: str, part: Part) -> Part:
        if not isinstance(part, Loader):
            return part
        batches = list(part.batches(seed, DataError))
        why = None
        if not all(map(is_divisible, batches)) or not _in_plain_containers(batches[0]):
            why = (
                "hold more than tensors with the examples along the first axis, and truth values, in tuples, lists and "
                "dictionaries"
            )
        elif len({form(batch) for batch in batches}) > 1:
            why = "differ in their shapes: pad all examples to one length"
        if why is not None:
            raise DataError(f"evolution reads {part.what} into memory as one batch, and its batches {why}")
        sizes[name] = [size(batch) for batch in batches]
        return Tensors(*mapped(_as_read, joined(batches)))

    test = read("test", parts.test) if parts.test is not None else None
    train, validation = read("train", parts.train), read("validation", parts.validation)
    return InMemory(replace(parts, train=train, validation=validation, test=test), sizes)


def measure_in_torch(source: ModelSource, seed: int, objective: Objective) -> MeasureExamples:
    """Return the function that measures a PyTorch module on examples."""
    model = source.build(seed)

    def measure(examples: Any, at_once: int) -> tuple[float, float]:
        batches: Any = list(chunks(examples, at_once))
        loader = Loader(DataLoader(batches, batch_size=None))
        return evaluate(model, loader, objective, torch.device("cpu"), at_once)

    return measure


def matters(measure: MeasureExamples, examples: Any, count: int) -> bool:
    """Say whether two batches as one measure otherwise than one by one.

    Args:
        measure: `measure(examples, at_once)` returns loss and metric over these examples, `at_once` of them at a time.
        examples: inputs and targets with the examples along the first axis; the first two batches are looked at.
        count: examples in a batch.

    >>> matters(lambda examples, at_once: (examples.sum().item(), float(at_once)), torch.ones(4), 2)
    True
    """
    two = rows(examples, 0, 2 * count)
    half = any(isinstance(leaf, torch.Tensor) and leaf.dtype.itemsize == 2 for leaf in leaves(two))
    close = CLOSE_IN_HALF_PRECISION if half else CLOSE
    try:
        one_by_one = measure(two, count)
        as_one = measure(two, 2 * count)
    except LotteryError:  # it cannot take another number of examples than the loader gives
        return True
    return not all(_alike(*pair, close) for pair in zip(one_by_one, as_one, strict=True))


def common_size(sizes: Sequence[int], what: str) -> int:
    """Return how many examples every batch has, but for the last one, which may have fewer.

    Raises:
        DataError: batches of different sizes.

    >>> common_size([6, 6, 2], "the DataLoader")
    6
    """
    first, last = sizes[0], sizes[-1]
    if set(sizes[:-1]) > {first} or last > first:
        raise DataError(
            f"the loss or the metric depends on which examples share a batch, and the batches of {what} have different "
            "sizes: evolution needs one batch_size for all of them; or use trainer 'gd'"
        )
    return first


def _alike(one: float, other: float, close: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other or abs(one - other) <= close * max(abs(one), abs(other), 1e-3)


def _in_plain_containers(batch: Any) -> bool:
    return all(isinstance(leaf, torch.Tensor | bool) for leaf in jax.tree.leaves(mapped(_as_read, batch)))


def _as_read(leaf: Any) -> Any:
    return leaf
