"""How a loop of the caller's own trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lottery.settings.functions import check_given
from pruning.errors import BadValue
from pruning.settings.ranges import check_ranges

_RANGES = {"steps": (1, 10**12), "epochs": (0, 10**9), "batch_size": (1, 10**9)}


@dataclass(frozen=True)
class LoopConfig:
    """The configuration of trainer `function`.

    Attributes:
        train: a function (`package.module:function` in a file) that trains a network: `train(model, mask, budget)`. The
            model is at the rewind point and holds its mask, whatever trains it; it is trained in place, or another one
            is returned, or its state dict. `budget` (`lottery.trainers.function.trainer.TrainingBudget`) says from
            which step to which, how many epochs that is, and the seed. A function of `(model, mask)` trains as long as
            it likes, and survivors can then not be rewound to a later step.
        evaluate: a function of a network that returns one number, where there is no data that is known here; otherwise
            the metric is measured on the data.
        higher_is_better: whether a higher number of `evaluate` is better.
        is_fraction: whether that number is a fraction, of which 0.005 is half a percentage point.
        steps: of a whole training, in the loop's own unit; 1,000 where neither `steps` nor `epochs` is given.
        epochs: passes over the training part instead; without data an epoch counts as one step.
        batch_size: examples a step, to count epochs; an evaluation takes eight times as many at once.
        device: `auto`, `cpu`, `cuda` or `cuda:0`: where the model is when it is handed over, and evaluated.
    """

    train: str | Callable[..., Any] | None = None
    evaluate: str | Callable[..., Any] | None = None
    higher_is_better: bool = True
    is_fraction: bool = False
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.train is None:
            raise BadValue("trainer 'function' needs the function: train=function(model, mask, budget)")
        for name in ("train", "evaluate"):
            check_given(name, getattr(self, name))
        if self.steps is not None and self.epochs is not None:
            raise BadValue("give steps or epochs, not both")
        if self.epochs is not None and not self.epochs > 0:
            raise BadValue(f"epochs must be more than 0, not {self.epochs:g}")
        check_ranges(self, _RANGES)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps a level trains for."""
        if self.epochs is not None:
            return max(1, round(self.epochs * steps_per_epoch))
        return self.steps or 1_000
