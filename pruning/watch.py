"""Watching a search: who is told of steps, evaluations and finished levels."""

from __future__ import annotations

from typing import Protocol

from pruning.jobs import Evaluation, Job


class Watch(Protocol):
    """Is told how a training proceeds. Must be quick: it is called after every step."""

    def stepped(self, job: Job, step: int) -> None:
        """One more optimizer step (or generation) of `job` is done."""
        ...

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """A point was added to the history of `job`."""
        ...


class Silent:
    """A watch that looks away."""

    def stepped(self, job: Job, step: int) -> None:
        """Do nothing."""

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """Do nothing."""
