"""How a loop of the caller's own trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lottery.settings.functions import check_given
from pruning.errors import BadValue
from pruning.settings.setting import check_settings, setting

GROUP = "A training loop of your own"

_MANY = 10**9


@dataclass(frozen=True)
class LoopConfig:
    """The settings of trainer `function`: a training loop of the caller's own."""

    train: str | Callable[..., Any] | None = setting(
        None,
        "A function that trains a network: `train(model, mask, budget)` (`package.module:function` in a file). The "
        "model is at the rewind point and holds its mask, whatever trains it. It is trained in place, or the function "
        "returns another one, or a state dict. `budget` (`lottery.trainers.function.trainer.TrainingBudget`) says from "
        "which step to which, how many epochs that is, and the seed. A function of `(model, mask)` trains as long as "
        "it likes, and survivors can then not be rewound to a later step.",
        group=GROUP,
    )
    evaluate: str | Callable[..., Any] | None = setting(
        None,
        "A function of a network that returns one number, where there is no data that is known here. By default the "
        "metric is measured on the data.",
        group=GROUP,
    )
    higher_is_better: bool = setting(True, "Whether a higher number of `evaluate` is better.", group=GROUP)
    is_fraction: bool = setting(
        False, "Whether that number is a fraction, of which 0.005 is half a percentage point.", group=GROUP
    )
    steps: int | None = setting(
        None,
        "Steps of a whole training, in the loop's own unit. By default 1,000, unless `epochs` is given.",
        least=1,
        most=10**12,
        group=GROUP,
    )
    epochs: float | None = setting(
        None,
        "Passes over the training part instead. Without data an epoch counts as one step.",
        above=0,
        most=_MANY,
        group=GROUP,
    )
    batch_size: int = setting(
        64,
        "Examples a step, to count epochs. An evaluation takes eight times as many at once.",
        least=1,
        most=_MANY,
        group=GROUP,
    )
    device: str = setting(
        "auto",
        "Where the model is when it is handed over, and evaluated: `auto`, `cpu`, `cuda` or `cuda:0`.",
        group=GROUP,
    )

    def __post_init__(self) -> None:
        if self.train is None:
            raise BadValue("trainer 'function' needs the function: train=function(model, mask, budget)")
        for name in ("train", "evaluate"):
            check_given(name, getattr(self, name))
        if self.steps is not None and self.epochs is not None:
            raise BadValue("give steps or epochs, not both")
        check_settings(self)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps a level trains for."""
        if self.epochs is not None:
            return max(1, round(self.epochs * steps_per_epoch))
        return self.steps or 1_000
