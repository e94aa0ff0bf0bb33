"""The weights at the steps that a budget names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pruning.jobs import Params


@dataclass(frozen=True)
class Snapshots:
    """Copies of the weights of one training.

    Attributes:
        steps: at which a copy is kept.
        kept: the copies so far, by step.
    """

    steps: tuple[int, ...]
    kept: dict[int, Params] = field(default_factory=dict)

    def stepped(self, step: int, network: Callable[[], Params]) -> None:
        """Copy the network as it is now, where this step is one of them.

        >>> snapshots = Snapshots((0, 2))
        >>> for step in range(2):
        ...     snapshots.stepped(step, lambda: {"step": step})
        >>> snapshots.kept, snapshots.complete
        ({0: {'step': 0}}, False)
        """
        if step in self.steps:
            self.kept[step] = network()

    @property
    def complete(self) -> bool:
        """Whether no copy is to come any more."""
        return all(step in self.kept for step in self.steps)
