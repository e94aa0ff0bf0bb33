"""The trainer: jobs in, trained networks out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax

from es.device import computing_on
from lottery.trainers.optax.frame import Frame
from lottery.trainers.optax.group import Compiled, Group
from lottery.trainers.optax.networks.confirming import Confirm
from lottery.trainers.optax.std import squares_of
from lottery.trainers.optax.steps import Rules, advance_in_loop, advance_one_by_one, arrays_with, begin_with, convolves
from pruning.errors import BadValue
from pruning.jobs import BEST, Job, Trained

# Where the forward pass of one network's batch takes fewer operations, replicates train stacked: the machine is not
# full yet. On a CPU a product of stacked matrices takes longer than one after the other, unless they are small.
STACKED_FLOPS = {"cpu": 4e6, "gpu": 1e11}


@dataclass(frozen=True, eq=False)
class OptaxTrainer:
    """Trains with one compiled loop, which all levels share; small networks stacked.

    Attributes:
        frame: settings and data.
        refusals: for what a criterion may need and is not to be had: why not.
        confirm: raises where a network is another one in PyTorch; None where it comes from JAX.
    """

    frame: Frame
    refusals: Mapping[str, str] = field(default_factory=dict)
    confirm: Confirm | None = None

    @property
    def provides(self) -> frozenset[str]:
        """The best weights, and a standard deviation of every weight."""
        return frozenset({"std", BEST}) - self.refusals.keys()

    @cached_property
    def by_steps(self) -> bool:
        """Whether Python calls every step: in a loop on a CPU, XLA computes a convolution a hundred times slower."""
        task = self.frame.problem.task
        few = jax.tree.map(lambda leaf: leaf[:1], task.train[0])
        return self.frame.device.platform == "cpu" and convolves(task.network.apply, task.params, few)

    @cached_property
    def compiled(self) -> Compiled:
        """The programs, which all levels share."""
        task = self.frame.problem.task
        rules = Rules(self.frame.problem.forward, task.loss, self.frame.optimizer, self.frame.config.clip_norm)
        advance = advance_one_by_one(rules) if self.by_steps else advance_in_loop(rules)
        return Compiled(begin_with(rules), advance, arrays_with(rules), squares_of(task))

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        """Yield each job's trained network as it is done; raises `BadValue` for a need it cannot meet."""
        if needs - self.provides:
            raise BadValue(f"the optax trainer does not provide {', '.join(sorted(needs - self.provides))}")
        if any(job.budget.until is not None for job in jobs):
            raise BadValue("the optax trainer does not end a training early: its budgets have no `until`")
        for group in self._groups(jobs):
            with computing_on(self.frame.device, "float32"):
                results = Group(self.frame, self.compiled, group).train(needs)
            for trained in results:
                if self.confirm is not None:
                    self.confirm(trained)
                yield trained

    def together(self, jobs: Sequence[Job], needs: frozenset[str]) -> bool:
        """Say whether any of these jobs would be trained stacked: its rounding then depends on the others."""
        return any(len(group) > 1 for group in self._groups(jobs))

    def _groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Return the jobs that are trained together: as many as it takes to fill the machine."""
        full = STACKED_FLOPS.get(self.frame.device.platform, STACKED_FLOPS["gpu"])
        # With patience, each ends at a different step.
        alone = self.frame.config.patience is not None or self.by_steps
        most = 1 if alone else max(1, math.ceil(full / max(1.0, self.frame.problem.task.flops)))
        groups: list[list[Job]] = []
        for _, alike in itertools.groupby(jobs, key=lambda job: job.budget):
            same = list(alike)
            groups += [same[start : start + most] for start in range(0, len(same), most)]
        return groups
