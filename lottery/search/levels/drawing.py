"""Drawing the next mask: which weights are scored, and in how many rounds.

weights, mask ─▶ evidence ─▶ criterion ─▶ scores ─▶ select ─▶ mask     (once, or in rounds)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from pruning.alive_rows import Rows, keeping_rows, require_rows
from pruning.calls.users_code import users_code
from pruning.criteria import Criterion
from pruning.errors import BadValue
from pruning.jobs import Job, Params, Prober, Trained
from pruning.ladder import Target
from pruning.mask import Mask
from pruning.patterns import Pattern
from pruning.patterns.unstructured import UNSTRUCTURED
from pruning.selection import select


@dataclass(frozen=True)
class Drawing:
    """How masks are drawn.

    Attributes:
        criterion: scores weights.
        prober: looks at networks for what the criterion needs to see.
        at: which weights are scored: `trained` or `rewind`.
        rounds: of scoring and removing, on an exponential schedule (Tanaka et al. 2020, Algorithm 1).
        candidates: `survivors`, or `all` (removed weights compete too, at their rewind values).
        guard: the fewest weights that every tensor keeps.
        pattern: which weights stay or go together.
        rows: for tensors whose rows must not be emptied, the axes that number them.
    """

    criterion: Criterion
    prober: Prober
    at: str
    rounds: int
    candidates: str
    guard: int
    pattern: Pattern = UNSTRUCTURED
    rows: Rows = field(default_factory=dict)

    def __post_init__(self) -> None:
        unseen = self.criterion.needs - self.prober.provides
        if self.candidates == "all" and unseen:
            raise BadValue(
                f"candidates 'all' scores removed weights too, and training gives criterion {self.criterion.name!r} no "
                f"{' and no '.join(sorted(unseen))} of those; use candidates 'survivors'"
            )

    @property
    def guarded(self) -> Rows:
        """The tensors of which no row may be emptied; none where the guard is off."""
        return self.rows if self.guard else {}

    def draw(self, trained: Trained, job: Job, rewound: Params, target: Target) -> Mask:
        """Return the next mask.

        Args:
            trained: the result of the training of `job`.
            job: that training, with the mask that it ended with.
            rewound: the weights that the next training will start from.
            target: how many weights the next mask keeps.

        Raises:
            BadValue: scores that are not a number, or a target that cannot be kept.
        """
        mask = Mask.dense(job.mask.shapes()) if self.candidates == "all" else job.mask
        params = rewound if self.at == "rewind" else trained.params
        if self.candidates == "all" and self.at == "trained":
            params = _revived(trained.params, rewound, job.mask)
        needs = self.criterion.needs & self.prober.provides
        for goal in rounds_between(mask, target, self.rounds):
            look = replace(job, params=mask.apply(dict(params)), mask=mask)
            evidence = self.prober.look(look, _kept(goal) / mask.total, needs) if needs else {}
            seen = replace(trained, params=look.params, evidence=evidence)
            with users_code(f"the criterion {self.criterion.name!r}"):
                scores = self.criterion.score(seen, replace(job, mask=mask))
            before, scores = mask, keeping_rows(scores, mask, self.guarded)
            mask = select(scores, mask, goal, self.guard, self.pattern)
            require_rows(before, mask, self.guarded)
        return mask


def rounds_between(mask: Mask, target: Target, rounds: int) -> list[Target]:
    """Return how many weights stay after each round: equal ratios, the last one exactly the target.

    >>> rounds_between(Mask.dense({"w": (100,)}), 1, 2)
    [10, 1]
    """
    counts = mask.counts()

    def after(number: int, before: int, goal: int) -> int:
        if number == rounds or before <= goal:  # a pattern may have removed more than the schedule asked for
            return goal
        return max(goal, round(before * (goal / before) ** Fraction(number, rounds)))

    goals: list[Target] = []
    for number in range(1, rounds + 1):
        if isinstance(target, Mapping):
            goals.append({name: after(number, counts[name], goal) if goal else 0 for name, goal in target.items()})
        else:
            goals.append(after(number, mask.kept, target))
    return goals


def _revived(trained: Params, rewound: Params, mask: Mask) -> Params:
    """Return the trained survivors, and removed weights at the values that they would start from."""
    return {**trained, **{name: np.where(keep, trained[name], rewound[name]) for name, keep in mask.items()}}


def _kept(target: Target) -> int:
    return target if isinstance(target, int) else sum(target.values())
