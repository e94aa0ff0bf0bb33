"""The weights that early stopping would have kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pruning.jobs import Evaluation, Params


@dataclass
class Best:
    """The network at the evaluation with the smallest validation loss so far, the earliest of equals.

    Attributes:
        loss: its validation loss.
        params: its parameters and buffers, on the host; None before any evaluation with a finite loss.
    """

    loss: float = math.inf
    params: Params | None = None

    def seen(self, evaluation: Evaluation, network: Callable[[], Params]) -> None:
        """Look at an evaluation of the network as it is now, and copy the network where it is the best.

        >>> best = Best()
        >>> for step, loss in enumerate((0.9, 0.4, float("nan"), 0.4)):
        ...     best.seen(Evaluation(step, None, loss, None, None, None), lambda: {"step": step})
        >>> best.params
        {'step': 1}
        """
        loss = evaluation.validation_loss
        if loss is not None and math.isfinite(loss) and loss < self.loss:
            self.loss, self.params = loss, network()
