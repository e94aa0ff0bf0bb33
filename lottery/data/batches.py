"""Batches: the order in which training examples are seen, a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from lottery.data.batch import form, is_divisible, joined, move, rows, size
from lottery.data.parts import Loader, Part, Tensors

__all__ = [
    "Batch",
    "evaluation_batches",
    "move",
    "sample",
    "size",
    "steps_per_epoch",
    "training_batches",
    "training_order",
]

Batch = tuple[Any, Any]

# Where batches differ in their shapes, at most this many times the examples asked for are read.
_READ = 8


def steps_per_epoch(part: Part, batch_size: int) -> int:
    """Return how many optimizer steps count as one pass over the training part; for a `DataLoader`, its `len`.

    The examples left over at the end of an epoch are dropped (each epoch drops others), so that every batch has
    the same size.
    """
    if isinstance(part, Loader):
        return len(part)
    return max(1, len(part) // batch_size)


def training_batches(part: Part, batch_size: int, seed: int, start: int, stop: int) -> Iterator[Batch]:
    """Yield the batches of steps `start` to `stop`.

    Step k's batch depends on the seed and on k alone: training that starts at step k sees what training from 0 would.
    A `DataLoader` is read to its end, whatever its `len` says, and then begun again.
    """
    if isinstance(part, Loader):
        yield from _loaded(part, seed, start, stop)
        return
    yield from map(part.gathered, training_order(part, batch_size, seed, start, stop))


def training_order(part: Tensors, batch_size: int, seed: int, start: int, stop: int) -> Iterator[torch.Tensor]:
    """Yield the positions of the examples in the batches of steps `start` to `stop`, int64 on the part's device.

    >>> part = Tensors(torch.zeros(5, 1), torch.zeros(5))
    >>> first, second = training_order(part, 2, seed=0, start=0, stop=2)
    >>> len({*first.tolist(), *second.tolist()})
    4
    """
    per_epoch = steps_per_epoch(part, batch_size)
    for epoch in range(start // per_epoch, (stop - 1) // per_epoch + 1):
        first = max(start - epoch * per_epoch, 0)
        last = min(stop - epoch * per_epoch, per_epoch)
        generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
        order = torch.randperm(len(part), generator=generator).to(part.device)
        yield from order.split(batch_size)[first:last]


def sample(part: Part, count: int, seed: int) -> Batch:
    """Return up to `count` examples as one batch: the first of a seeded order.

    Batches of a `DataLoader` can be one batch only where they have one form: of those that differ (text, padded to the
    longest of its batch) the commonest form among the first ones is taken, and of those that cannot be cut, one whole.
    """
    if isinstance(part, Tensors):
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
        return part.gathered(order.to(part.device))
    alike: dict[Any, list[Batch]] = {}
    read = 0
    for number, batch in enumerate(part.batches(seed)):
        group = alike.setdefault(form(batch) if is_divisible(batch) else number, [])
        group.append(batch)
        read += size(batch)
        if _examples(group) >= count or read >= _READ * count:
            break
    chosen = joined(max(alike.values(), key=_examples))
    return rows(chosen, 0, count) if is_divisible(chosen) else chosen


def evaluation_batches(part: Part, batch_size: int) -> Iterator[Batch]:
    """Yield the whole part in order."""
    if isinstance(part, Tensors):
        yield from (part.rows(first, first + batch_size) for first in range(0, len(part), batch_size))
    else:
        yield from part.batches(0)


def _loaded(part: Loader, seed: int, start: int, stop: int) -> Iterator[Batch]:
    epoch, skipped, step = 0, start, start
    while skipped and skipped >= (length := part.length(_epoch_seed(seed, epoch), epoch)):
        epoch, skipped = epoch + 1, skipped - length
    while step < stop:
        for place, batch in enumerate(part.batches(_epoch_seed(seed, epoch), epoch=epoch)):
            if place < skipped:
                continue
            yield batch
            step += 1
            if step == stop:
                return
        epoch, skipped = epoch + 1, 0


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch


def _examples(batches: list[Batch]) -> int:
    return sum(map(size, batches))
