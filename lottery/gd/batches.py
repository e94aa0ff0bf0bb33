"""Batches: the order in which training examples are seen, a pure function of seed and step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.data import DataLoader

from lottery.data.parts import Loader, Part, Tensors, seeded, split_batch

Batch = tuple[Any, Any]


def steps_per_epoch(part: Part, batch_size: int) -> int:
    """Return how many optimizer steps one pass over the training part takes.

    The examples left over at the end of an epoch are dropped (each epoch drops others), so that every batch has
    the same size.
    """
    if isinstance(part, Loader):
        return len(part)
    return max(1, len(part) // batch_size)


def training_batches(part: Part, batch_size: int, seed: int, start: int, stop: int) -> Iterator[Batch]:
    """Yield the batches of steps `start` to `stop`.

    Step k's batch depends on the seed and on k alone: training that starts at step k sees what training from 0 would.
    """
    per_epoch = steps_per_epoch(part, batch_size)
    for epoch in range(start // per_epoch, (stop - 1) // per_epoch + 1):
        first = max(start - epoch * per_epoch, 0)
        last = min(stop - epoch * per_epoch, per_epoch)
        epoch_seed = seed * 1_000_003 + epoch
        if isinstance(part, Tensors):
            yield from _shuffled(part, batch_size, epoch_seed, first, last)
        else:
            yield from itertools.islice(_loaded(part.loader, epoch_seed), first, last)


def sample(part: Part, count: int, seed: int) -> Batch:
    """Return up to `count` examples as one batch: the first of a seeded order."""
    if isinstance(part, Tensors):
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
        chosen = part.take(order.to(part.inputs.device))
        return chosen.inputs, chosen.targets
    batches: list[Batch] = []
    for batch in _loaded(part.loader, seed):
        batches.append(batch)
        if sum(map(size, batches)) >= count:
            break
    joined = tree_map(lambda *leaves: torch.cat(leaves), batches[0], *batches[1:])
    return tree_map_only(torch.Tensor, lambda tensor: tensor[:count], joined)


def evaluation_batches(part: Part, batch_size: int) -> Iterator[Batch]:
    """Yield the whole part in order."""
    if isinstance(part, Tensors):
        yield from zip(part.inputs.split(batch_size), part.targets.split(batch_size), strict=True)
    else:
        yield from (split_batch(batch) for batch in part.loader)


def move(value: Any, device: torch.device) -> Any:
    """Return a pytree (tuples, lists, mappings) with its tensors on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(move(item, device) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(move(item, device) for item in value)
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    return value


def size(batch: Any) -> int:
    """Return the number of examples: the length of the first tensor in a pytree."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    values = batch.values() if isinstance(batch, Mapping) else batch
    return size(next(iter(values)))


def _shuffled(part: Tensors, batch_size: int, seed: int, first: int, last: int) -> Iterator[Batch]:
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).to(part.inputs.device)
    for index in order.split(batch_size)[first:last]:
        yield part.inputs.index_select(0, index), part.targets.index_select(0, index)


def _loaded(loader: DataLoader[Any], seed: int) -> Iterator[Batch]:
    with seeded(loader, seed):
        yield from (split_batch(batch) for batch in loader)
