"""When a training is evaluated, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from lottery.trainers.gd.config import GDConfig
from pruning.jobs import Budget, Evaluation
from pruning.settings.patience import Patience


@dataclass
class Course:
    """The steps of one training.

    Attributes:
        budget: from which step to which, at most.
        every: steps between evaluations.
        patience: ends a training that gets no better; None where nothing does.
        stop: the last step: the budget's, or that at which training was ended.
        impatient_at: the step at which patience ended it.
    """

    budget: Budget
    every: int
    patience: Patience | None = None
    stop: int = field(init=False)
    impatient_at: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.stop = self.budget.stop

    def evaluates(self, step: int) -> bool:
        """Say whether the network is evaluated after this step.

        >>> course = Course(Budget(0, 7), every=3)
        >>> [step for step in range(1, 8) if course.evaluates(step)]
        [3, 6, 7]
        """
        return step % self.every == 0 or step == self.stop

    def lose_patience(self, point: Evaluation, may_end: bool) -> None:
        """Look at an evaluation, and end training there where there was no better one for long, if it may end."""
        if self.patience is not None and self.patience.over(point) and may_end and point.step < self.stop:
            self.stop = self.impatient_at = point.step

    def end(self, step: int) -> None:
        """Let this step be the last."""
        self.stop = step

    def ended_early(self, step: int) -> bool:
        """Say whether training was ended at this step, before its budget's last one.

        >>> course = Course(Budget(0, 7), every=3)
        >>> course.end(3)
        >>> course.ended_early(3), course.ended_early(2)
        (True, False)
        """
        return step == self.stop < self.budget.stop


def course_of(budget: Budget, config: GDConfig, total_steps: int) -> Course:
    """Return the course of a training.

    Args:
        budget: the budget of the training.
        config: how often it is evaluated, and what ends it early.
        total_steps: the number of steps of a whole training.

    >>> course_of(Budget(50, 100), GDConfig(patience=3), 100).every
    5
    """
    every = config.eval_every or max(1, total_steps // 20)
    return Course(budget, every, Patience(config.patience) if config.patience is not None else None)
