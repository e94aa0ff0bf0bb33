"""Watching a training from outside: who is told how far it is, and who keeps what an interrupted one needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from pruning.jobs import Evaluation, Job

Arrays = Mapping[str, NDArray[Any]]


class Watch(Protocol):
    """Is told how a training proceeds, and keeps checkpoints of it. Must be quick: it is called often."""

    def stepped(self, job: Job, step: int) -> None:
        """The training of `job` has done `step` (an optimizer step or a generation, counted as its budget is)."""
        ...

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """A point was added to the history of `job`."""
        ...

    def checkpoint(self, jobs: Sequence[Job], arrays: Arrays, facts: Sequence[Mapping[str, Any]]) -> None:
        """Keep the state of a training that is not finished, instead of what was kept of these jobs before.

        Args:
            jobs: that are trained together.
            arrays: the state, with one row for each job.
            facts: other values that a resumed training needs, plain JSON for each job.
        """
        ...

    def restore(self, jobs: Sequence[Job]) -> tuple[Arrays, Sequence[Mapping[str, Any]]] | None:
        """Return the last checkpoint of exactly these jobs, a row and a JSON value for each, or None."""
        ...


class Silent:
    """A watch that looks away and keeps nothing."""

    def stepped(self, job: Job, step: int) -> None:
        """Do nothing."""

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """Do nothing."""

    def checkpoint(self, jobs: Sequence[Job], arrays: Arrays, facts: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def restore(self, jobs: Sequence[Job]) -> tuple[Arrays, Sequence[Mapping[str, Any]]] | None:
        """Return nothing."""
        return None
