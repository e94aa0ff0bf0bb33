"""Batches of several trainings at once: row j is the very batch that job j would see alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lottery.data.batches import steps_per_epoch, training_batches
from lottery.data.parts import Tensors


def stacked_batches(
    part: Tensors, batch_size: int, seeds: Sequence[int], start: int, stop: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches of steps `start` to `stop` as inputs [J, B, …] and targets [J, B, …], a row for each seed.

    Row j is what `training_batches` gives for `seeds[j]`. Only positions are kept for each job, an epoch of them at a
    time; the examples are gathered from the one data set on its device.
    """
    per_epoch = steps_per_epoch(part, batch_size)
    device = part.inputs.device
    positions = torch.arange(len(part))
    for epoch in range(start // per_epoch, (stop - 1) // per_epoch + 1):
        rows = [_order(positions, per_epoch * batch_size, seed, epoch) for seed in seeds]
        index = torch.stack(rows).to(device)
        first = max(start - epoch * per_epoch, 0)
        last = min(stop - epoch * per_epoch, per_epoch)
        for chosen in index.split(batch_size, dim=1)[first:last]:
            yield _gather(part.inputs, chosen), _gather(part.targets, chosen)


def _order(positions: torch.Tensor, length: int, seed: int, epoch: int) -> torch.Tensor:
    """Return an epoch's order: one batch as long as all of its batches together."""
    ((order, _),) = training_batches(Tensors(positions, positions), length, seed, epoch, epoch + 1)
    return order


def _gather(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.index_select(0, index.flatten()).unflatten(0, index.shape)
