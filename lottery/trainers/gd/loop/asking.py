"""The question of a budget (whether a training may end early), asked during one training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pruning.jobs import Answer, Question, Trained


@dataclass
class Asking:
    """The answer to a question so far.

    Attributes:
        question: the question of the budget.
        looks: the last ones, no more than the question needs.
        found: the training when the answer was yes for the first time.
    """

    question: Question
    looks: list[Any] = field(default_factory=list)
    found: Trained | None = None

    def ends(self, so_far: Trained) -> bool:
        """Ask, unless the answer was yes before, and say whether to end the training here."""
        if self.found is None:
            self.looks = [*self.looks, self.question.look(so_far)][-self.question.looks :]
            if self.question.answer(self.looks):
                self.found = so_far
        return self.question.ends and self.found is not None

    def answered(self, trained: Trained, stop: int) -> Trained:
        """Return the result of a training with the answer, and with the weights at that time unless it ended there.

        Args:
            trained: the result without the answer.
            stop: the last step of its budget.
        """
        if self.found is None:
            return replace(trained, answer=Answer(None, ended=False))
        step = self.found.history[-1].step
        trained = replace(trained, answer=Answer(step, ended=self.question.ends and step < stop))
        if self.question.ends:
            return trained
        return replace(trained, snapshots={**trained.snapshots, step: self.found.params})
