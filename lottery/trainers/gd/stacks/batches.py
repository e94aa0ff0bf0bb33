"""Batches of several trainings at once: row j is the very batch that job j would see alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lottery.data.batches import steps_per_epoch, training_batches
from lottery.data.parts import Tensors


class StackedBatches:
    """The batches of a stack, gathered from the one data set on its device.

    Only positions are kept for each job, an epoch of them at a time, and which step comes next, in tensors that stay
    where they lie: a recorded step reads them anew.

    Args:
        part: the data.
        batch_size: examples of a step.
        seeds: of the jobs.
        stop: the step at which training ends.

    Attributes:
        place: [1], the step within the epoch that comes next.
    """

    def __init__(self, part: Tensors, batch_size: int, seeds: Sequence[int], stop: int) -> None:
        self._part, self._size, self._seeds, self._stop = part, batch_size, seeds, stop
        self._per_epoch = steps_per_epoch(part, batch_size)
        self._positions = torch.arange(len(part))
        device = part.inputs.device
        # [steps of an epoch, J, B]
        self._order = torch.zeros((self._per_epoch, len(seeds), min(batch_size, len(part))), dtype=torch.int64).to(
            device
        )
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self._next: int | None = None
        # Rows of the epoch that comes next: shuffled while the device works through this one, a seed at a time.
        self._ahead: list[torch.Tensor] = []
        self._each = max(1, self._per_epoch // (len(seeds) + 1))

    def before(self, step: int) -> None:
        """Make the batches of this step, counted from 0, the ones that are read next."""
        epoch, place = divmod(step, self._per_epoch)
        if step != self._next:
            self._ahead.clear()
            self.place.fill_(place)
        if step != self._next or place == 0:
            self._read(epoch)
        elif place % self._each == 0 and (epoch + 1) * self._per_epoch < self._stop:
            self._look_ahead(epoch + 1, len(self._ahead) + 1)
        self._next = step + 1

    def gathered(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs [J, B, …] and the targets [J, B, …] of this step."""
        chosen = self._order.index_select(0, self.place)[0]
        return _gather(self._part.inputs, chosen), _gather(self._part.targets, chosen)

    def passed(self) -> None:
        """Go on to the next step, as far as the device is concerned."""
        self.place.add_(1).remainder_(self._per_epoch)

    def _read(self, epoch: int) -> None:
        self._look_ahead(epoch, len(self._seeds))
        rows = torch.stack(self._ahead)
        self._order.copy_(rows.unflatten(1, (self._per_epoch, -1)).transpose(0, 1))
        self._ahead.clear()

    def _look_ahead(self, epoch: int, count: int) -> None:
        """Have the orders of an epoch for this many seeds, or all."""
        self._ahead += [self._epoch(seed, epoch) for seed in self._seeds[len(self._ahead) : count]]

    def _epoch(self, seed: int, epoch: int) -> torch.Tensor:
        """Return an epoch's order: one batch as long as all of its batches together."""
        length = self._per_epoch * self._size
        ((order, _),) = training_batches(Tensors(self._positions, self._positions), length, seed, epoch, epoch + 1)
        return order


def _gather(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.index_select(0, index.flatten()).unflatten(0, index.shape)
