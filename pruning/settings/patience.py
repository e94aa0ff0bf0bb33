"""When a training ends early: after some evaluations without a smaller validation loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pruning.jobs import Evaluation

# What the record of a training with patience says: the step at which it ended early, or none.
PATIENCE_ENDED = "patience_ended"


@dataclass
class Patience:
    """Counts evaluations since the smallest validation loss.

    Attributes:
        most: how many without a smaller one end a training.
        smallest: so far.
        waited: evaluations since.
    """

    most: int
    smallest: float = math.inf
    waited: int = 0

    def over(self, evaluation: Evaluation) -> bool:
        """Look at an evaluation, and say whether to end the training there.

        >>> patience = Patience(2)
        >>> [patience.over(Evaluation(s, None, l, None, None, None)) for s, l in enumerate((0.9, 0.4, 0.4, 0.5))]
        [False, False, False, True]
        """
        loss = evaluation.validation_loss
        if loss is not None and loss < self.smallest:
            self.smallest, self.waited = loss, 0
        else:
            self.waited += 1
        return self.waited >= self.most
