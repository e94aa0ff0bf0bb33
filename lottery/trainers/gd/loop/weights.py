"""Which weights are measured, kept and delivered: not always those at which gradients are taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from lottery.state.tensors import State
from lottery.trainers.gd.loop.averaging import Average
from lottery.trainers.gd.loop.network import JobNetwork
from lottery.trainers.gd.optimizers.given import Optimizers


@dataclass(frozen=True)
class Weights:
    """The weights of one network that others see.

    Attributes:
        network: the network to train.
        optimizers: some keep other weights to be evaluated (schedule-free ones).
        average: of the weights over steps; None where there is none.
    """

    network: JobNetwork
    optimizers: Optimizers
    average: Average | None

    def stepped(self) -> None:
        """Take the weights after a step into the average."""
        if self.average is not None:
            with self._of_optimizers():
                self.average.update(self.network.model)
            self.average.apply_mask(self.network.mask)

    def to_rewind_to(self) -> State:
        """Return the weights that survivors are rewound to: no average."""
        with self._of_optimizers():
            return self.network.state()

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[None]:
        """Have the network hold the weights that are evaluated while the block runs."""
        model, average = self.network.model, self.average
        with self._of_optimizers(), average.in_place(model) if average is not None else contextlib.nullcontext():
            yield

    def deliver(self) -> None:
        """Have the network hold the weights that are evaluated from now on: training is over."""
        self.optimizers.eval(self.network.model, self.network.mask)
        if self.average is not None:
            self.average.write(self.network.model)

    def _of_optimizers(self) -> contextlib.AbstractContextManager[None]:
        return self.optimizers.evaluating(self.network.model, self.network.mask)
