"""The gradient-descent trainer."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from lottery.data.parts import Parts
from lottery.networks.objectives.objective import Objective
from lottery.state.machine.memory import keeping_memory
from lottery.state.machine.telling import say
from lottery.state.randomness import seeded_everywhere
from lottery.trainers.factors import Factors
from lottery.trainers.gd.alone import train_alone
from lottery.trainers.gd.chain.chain import Chain
from lottery.trainers.gd.chain.paths import Rates
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.strides import chain_of
from lottery.trainers.gd.side_by_side import train_side_by_side
from lottery.trainers.gd.stacked import groups_of, train_stacked
from lottery.trainers.gd.stacks.memory import out_of_memory
from lottery.trainers.gd.stacks.telling import Once
from pruning.alive_rows import Rows
from pruning.errors import BadValue
from pruning.jobs import BEST, Job, Trained
from pruning.watch import Watch


@dataclass(frozen=True)
class GDTrainer:
    """Trains with an eager loop, small networks stacked; data and weights stay on the device.

    Attributes:
        model: the architecture; its weights are never used nor changed.
        parts: the data, on the device.
        objective: loss and metric.
        config: how to train.
        total_steps: steps of a whole training, the length of the learning-rate schedule.
        device: where to train.
        threads: how many CPU threads PyTorch may use.
        watch: receives progress.
        rows: for tensors whose rows a moving mask must not empty, the axes that number them.
        factors: by what the learning rates of single tensors are multiplied.
        chain: compiled steps that take the trainings; None where PyTorch's operations do.
        rates: by which layers train sparse or dense where these do; None where all are dense.
        tell: says once what people should know of how it trains.
    """

    model: nn.Module
    parts: Parts
    objective: Objective
    config: GDConfig
    total_steps: int
    device: torch.device
    threads: int
    watch: Watch
    rows: Rows = field(default_factory=dict)
    factors: Factors = field(default_factory=Factors)
    chain: Chain | None = None
    rates: Rates | None = None
    tell: Callable[[str], None] = field(default_factory=Once)

    @property
    def provides(self) -> frozenset[str]:
        """A standard deviation of every weight, from where the configuration says, and the best weights."""
        return frozenset({"std", BEST})

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """The rates by which layers are trained sparse or dense; None where all are dense."""
        rates = self.chain.rates if self.chain is not None else self.rates
        return rates.as_json() if rates is not None else None

    def calibrated(self, calibration: Mapping[str, Any] | None) -> GDTrainer:
        """Return a trainer that takes the steps as one with this calibration did.

        Raises:
            BadValue: what is no calibration of this trainer.
        """
        if calibration is None:
            return replace(self, chain=None, rates=None)
        rates = Rates.of_json(calibration)
        if self.chain is None and self.rates is None:
            say("begun with compiled products, which cannot be had here: PyTorch's go on, and round differently")
            return self
        chain = replace(self.chain, rates=rates) if self.chain is not None else None
        return replace(self, chain=chain, rates=rates if self.rates is not None else None)

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        """Yield each job's trained network as it is done; raises `BadValue` for a need it cannot meet."""
        if needs - self.provides:
            raise BadValue(f"the gd trainer does not provide {', '.join(sorted(needs - self.provides))}")
        for group in self._groups(jobs, needs):
            if (chain := chain_of(self, group[0], needs)) is not None:
                yield from self._side_by_side(group, needs, chain.threads)
            else:
                yield from self.train_group(group, needs)

    def together(self, jobs: Sequence[Job], needs: frozenset[str]) -> bool:
        """Say whether any of these jobs would be trained stacked: its bits then depend on the others."""
        groups = self._groups(jobs, needs)
        return any(len(group) > 1 and chain_of(self, group[0], needs) is None for group in groups)

    def train_group(self, jobs: Sequence[Job], needs: frozenset[str]) -> list[Trained]:
        """Train jobs that can be stacked in one loop, or one alone."""
        with isolated(self.device, jobs[0].seed, self.threads):
            try:
                return [train_alone(self, jobs[0], needs)] if len(jobs) == 1 else train_stacked(self, jobs, needs)
            except torch.OutOfMemoryError as error:
                raise out_of_memory(jobs, self.config, self.device) from error

    def _side_by_side(self, jobs: Sequence[Job], needs: frozenset[str], cores: int) -> Iterator[Trained]:
        """Yield what compiled steps train; whoever takes a result does so in a process that is as it was."""
        results = train_side_by_side(self._watched_by, self.watch, jobs, needs, cores)
        for job in jobs:
            # PyTorch has one thread then: what it still does is small, and its threads spin while they wait.
            with isolated(self.device, job.seed, 1):
                result = next(results)
            yield result

    def _watched_by(self, watch: Watch) -> GDTrainer:
        return replace(self, watch=watch)

    def _groups(self, jobs: Sequence[Job], needs: frozenset[str]) -> list[Sequence[Job]]:
        groups: list[Sequence[Job]] = []
        for compiled, alike in itertools.groupby(jobs, key=lambda job: chain_of(self, job, needs) is not None):
            if compiled:
                groups.append(list(alike))
            else:
                with isolated(self.device, 0, self.threads):
                    groups += groups_of(self, list(alike), needs)
        return groups


@contextlib.contextmanager
def isolated(device: torch.device, seed: int, threads: int) -> Iterator[None]:
    """Seed everything for one training and restore the caller's random state and switches afterwards.

    On CUDA, algorithms are deterministic where there are any, and float32 is float32 (no TF32).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(seeded_everywhere(seed))
            stack.enter_context(keeping_memory())
            if device.type == "cuda":
                stack.enter_context(_deterministic_cuda())
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _deterministic_cuda() -> Iterator[None]:
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.use_deterministic_algorithms(was, warn_only=warned)
