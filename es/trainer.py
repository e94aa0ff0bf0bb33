"""The evolution trainer: jobs in, evolved networks out."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from es.config import ESConfig
from es.coordinates import Space, beside_weights, by_tensor, pack, positions, replaced, spread
from es.device import Device, as_many_as_divide, computing_on
from es.evolution import Advance, Evolution, Rules, Sample, advance_single, advance_stacked, begin, evaluated
from es.record import Record, from_arrays, generation_of, to_arrays
from es.schedules import at_generation
from es.strategies import Strategy, get_strategy, make_strategy
from es.strategies._scaled import scaled
from es.tasks import Task
from pruning.errors import BadValue
from pruning.jobs import BEST, Evaluation, Job, Params, Trained, stays_finite
from pruning.mask import Mask
from pruning.masks.names import values_by_name
from pruning.settings.patience import PATIENCE_ENDED, Patience
from pruning.watch import Watch

# Where a generation of one network takes fewer operations, replicates run stacked: the machine is not full yet.
STACKED_FLOPS = {"cpu": 5e7, "gpu": 1e12}
# Of parameters and buffers, the key of what was seen, the loss, and the generation.
Compare = Callable[[Params, jax.Array, float, int], None]
# Seconds of generations between two updates of the progress bar.
UPDATE_SECONDS = 0.25


@dataclass(frozen=True)
class ESTrainer:
    """Evolves the surviving coordinates of every job, with a fresh strategy around its rewind weights.

    Attributes:
        task: the task on which networks are judged.
        space: the evolved parameters.
        config: how to evolve.
        total_generations: the number of generations of a whole training.
        devices: where to evolve; members are spread over several.
        watch: receives progress, and keeps checkpoints.
        compare: is shown two members of the first generation that a compiled program ran: the whole network, the key of
            what it saw, its loss there, and the generation's number. Raises where that loss is another one.
    """

    task: Task
    space: Space
    config: ESConfig
    total_generations: int
    devices: tuple[Device, ...]
    watch: Watch
    compare: Compare | None = None

    @property
    def provides(self) -> frozenset[str]:
        """The best weights, and the standard deviation of the search distribution where all weights have one each."""
        no_std = get_strategy(self.config.strategy).distribution in ("scalar", "unknown")
        return frozenset({BEST} if no_std or self.config.train_only else {BEST, "std"})

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        """Yield every job's network; raises `BadValue` for a need it cannot meet."""
        if needs - self.provides:
            raise BadValue(f"the es trainer does not provide {', '.join(sorted(needs - self.provides))}")
        if any(job.budget.until is not None for job in jobs):
            raise BadValue("the es trainer does not end a training early: its budgets have no `until`")
        # What an earlier attempt finished and had no time to hand over comes first, so that the others are evolved in
        # the groups that they were in.
        finished = list(itertools.takewhile(self._is_finished, jobs))
        compiled = _Compiled()
        for group in [[job] for job in finished] + self._groups(jobs[len(finished) :]):
            with computing_on(self.devices[0], self.config.precision):
                results = self._train(group, needs, compiled)
            yield from results

    @property
    def sigma_factors(self) -> dict[str, float]:
        """By what `sigma` is multiplied, by tensor name."""
        return values_by_name(self.config.sigma_factors, self.space.names, "sigma_factors")

    def together(self, jobs: Sequence[Job], needs: frozenset[str]) -> bool:
        """Say whether any of these jobs would be evolved stacked: its rounding then depends on the others."""
        return any(len(group) > 1 for group in self._groups(jobs))

    def _groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Return the jobs that are evolved together: as many as it takes to fill the machine."""
        # With patience, each ends at a different generation.
        alike = len({(job.mask.kept, _halved(self.space, job.mask), job.budget) for job in jobs}) <= 1
        # ... and factors of sigma lie elsewhere in the vectors of each.
        alike = alike and self.config.patience is None and not self.config.sigma_factors
        full = STACKED_FLOPS.get(self.devices[0].platform, STACKED_FLOPS["gpu"])
        most = max(1, math.ceil(full / max(1.0, self.task.flops * self.config.population))) if alike else 1
        return [list(jobs[start : start + most]) for start in range(0, len(jobs), most)]

    def _is_finished(self, job: Job) -> bool:
        """Say whether a checkpoint holds the end of this job's evolution."""
        kept = self.watch.restore([job])
        return kept is not None and generation_of(kept[0]) == job.budget.stop

    def _train(self, jobs: Sequence[Job], needs: frozenset[str], compiled: _Compiled) -> list[Trained]:
        where = np.stack([positions(self.space, job.mask) for job in jobs])
        strategy, advance = compiled.get(
            (where.shape, where.tobytes(), jobs[0].budget.start), lambda: self._advance(where, jobs[0].budget.start)
        )
        group = _Group(self, strategy, advance, jobs, where)
        states, records = group.run(*group.start())
        return [group.result(row, states, records[row], needs) for row in range(len(jobs))]

    def _advance(self, where: NDArray[np.int32], start: int) -> tuple[Strategy, Advance]:
        """Return the strategy, and the compiled generations of networks with their survivors at these places [R, D]."""
        config = self.config
        sigma, settings = at_generation(
            config.strategy, config.sigma, config.strategy_params, start, self.total_generations
        )
        strategy = make_strategy(config.strategy, config.population, where.shape[1], sigma, settings)
        if config.sigma_factors:
            strategy = scaled(strategy, by_tensor(self.space, self.sigma_factors)[where[0]])
        rules = Rules(strategy, self.task, config.mean_decay, as_many_as_divide(self.devices, config.population))
        return strategy, (advance_stacked if len(where) > 1 else advance_single)(rules, where)


@dataclass
class _Compiled:
    """The last program: replicates that are evolved one after the other begin under the same, dense, mask."""

    key: Any = None
    made: tuple[Strategy, Advance] | None = None

    def get(self, key: Any, make: Callable[[], tuple[Strategy, Advance]]) -> tuple[Strategy, Advance]:
        """Return the object made for this key, if it was the last one made; otherwise make it."""
        if self.made is None or key != self.key:
            self.key, self.made = key, make()
        return self.made


@dataclass(frozen=True)
class _Group:
    """Jobs that are evolved together; row i of every state belongs to job i."""

    trainer: ESTrainer
    strategy: Strategy
    advance: Advance
    jobs: Sequence[Job]
    where: NDArray[np.int32]

    def start(self) -> tuple[Evolution, list[Record]]:
        """Return fresh evolutions, or those of an earlier attempt as its last checkpoint kept them."""
        space, budget = self.trainer.space, self.jobs[0].budget
        fresh = [
            begin(
                self.strategy, jnp.asarray(pack(space, places, job.params)), _fixed(space, job), job.seed, budget.start
            )
            for job, places in zip(self.jobs, self.where, strict=True)
        ]
        states: Evolution = jax.tree.map(lambda *leaves: jnp.stack(leaves), *fresh)
        records = [Record(best=job.mask.apply(job.params)) for job in self.jobs]
        if budget.start in budget.snapshots:
            records = [record.with_snapshot(budget.start, record.best) for record in records]
        kept = self.trainer.watch.restore(self.jobs)
        if kept is not None:
            states, records = from_arrays(states, *kept)
        for job, record in zip(self.jobs, records, strict=True):
            self.trainer.watch.stepped(job, int(states.generation[0]))
            for evaluation in record.history:
                self.trainer.watch.evaluated(job, evaluation)
        return states, records

    def run(self, states: Evolution, records: list[Record]) -> tuple[Evolution, list[Record]]:
        """Evolve to the end of the budget; come back for evaluations, snapshots, progress and checkpoints."""
        config, watch, budget = self.trainer.config, self.trainer.watch, self.jobs[0].budget
        every = config.eval_every or max(1, self.trainer.total_generations // 20)
        done, chunk, kept_at, compared = int(states.generation[0]), 1, time.monotonic(), False
        while done < budget.stop and bool((states.failed < 0).any()) and self._ended(records[0], done) is None:
            pause = min([(done // every + 1) * every, budget.stop, *(s for s in budget.snapshots if s > done)])
            count = min(chunk, pause - done)
            began = time.monotonic()
            before = states
            states, sample = jax.block_until_ready(self.advance(states, self.trainer.task.data, count))
            chunk = max(1, min(2 * chunk, int(count * UPDATE_SECONDS / (time.monotonic() - began + 1e-9))))
            done += count
            if not compared:  # the first chunk is one generation
                self._compare(before, sample, done)
                compared = True
            for job in self.jobs:
                watch.stepped(job, done)
            if done == pause:
                states, records = self._look(states, records, done, evaluate=done % every == 0 or done == budget.stop)
            last = done == budget.stop or self._ended(records[0], done) is not None
            if last or time.monotonic() - kept_at >= config.checkpoint_seconds:
                watch.checkpoint(self.jobs, *to_arrays(states, records))
                kept_at = time.monotonic()
        return states, records

    def _ended(self, record: Record, done: int) -> int | None:
        """Return the generation at which patience ended an evolution, if that is this one.

        That follows from the record alone, so that one that is resumed ends where it would have.
        """
        most, budget = self.trainer.config.patience, self.jobs[0].budget
        if most is None or not record.history or record.history[-1].step != done or done >= budget.stop:
            return None
        patience = Patience(most)
        over = [patience.over(evaluation) for evaluation in record.history][-1]
        # Nothing ends before the weights that survivors go back to are there.
        return done if over and all(step in record.snapshots for step in budget.snapshots) else None

    def result(self, row: int, states: Evolution, record: Record, needs: frozenset[str]) -> Trained:
        """Return the result of one job's evolution."""
        job, state = self.jobs[row], _row(states, row)
        params = self._network(row, state)
        failed = None
        if int(state.failed) >= 0:
            failed = f"no member of the population had a finite loss in generation {int(state.failed)}"
        elif not stays_finite(params, job.params):
            failed = f"the weights are not finite at generation {int(state.generation)}"
        elif not _is_finite(record.history[-1].validation_loss):
            failed = f"the validation loss of the mean is not finite at generation {int(state.generation)}"
        if failed is not None:
            return Trained(params=params, history=record.history, diverged=failed)
        std = spread(self.trainer.space, self.where[row], self.strategy.std(state.strategy)) if "std" in needs else None
        if std is not None:
            std = {name: np.abs(std[name]) for name in job.mask}  # of a complex weight, that of both halves together
        ended = self._ended(record, int(state.generation))
        facts = {"sigma_beside_weights": self._beside_weights(job)}
        facts |= {PATIENCE_ENDED: ended} if self.trainer.config.patience is not None else {}
        return Trained(params, record.history, record.snapshots, std=std, best=record.best, facts=facts)

    def _beside_weights(self, job: Job) -> dict[str, float]:
        one, config = self.trainer, self.trainer.config
        start, total = job.budget.start, one.total_generations
        sigma, _ = at_generation(config.strategy, config.sigma, config.strategy_params, start, total)
        return beside_weights(one.space, job.params, job.mask, sigma, one.sigma_factors)

    def _look(
        self, states: Evolution, records: list[Record], done: int, evaluate: bool
    ) -> tuple[Evolution, list[Record]]:
        """Evaluate the means and keep snapshots, as the budget says for this generation."""
        seen = []
        for row, (job, record) in enumerate(zip(self.jobs, records, strict=True)):
            state = _row(states, row)
            params = self._network(row, state)
            if done in job.budget.snapshots:
                record = record.with_snapshot(done, params)
            if evaluate:
                measured = self.trainer.task.measure({name: jnp.asarray(value) for name, value in params.items()})
                train_loss = float(state.loss_sum) / max(1, int(state.loss_count))
                evaluation = Evaluation(done, train_loss, **vars(measured))
                record = record.evaluated(evaluation, params)
                self.trainer.watch.evaluated(job, evaluation)
            seen.append(record)
        return (evaluated(states) if evaluate else states), seen

    def _compare(self, before: Evolution, sample: Sample, done: int) -> None:
        """Show two members of a generation, of the first and the last job, to `compare`."""
        compare = self.trainer.compare
        if compare is None:
            return
        for row in sorted({0, len(self.jobs) - 1}):
            state, own = _row(before, row), jax.tree.map(lambda leaf, row=row: leaf[row], sample)
            for member, loss in zip(own.members, own.losses, strict=True):
                compare(self._network(row, state, member), own.key, float(loss), done)

    def _network(self, row: int, state: Evolution, at: jax.Array | None = None) -> dict[str, NDArray[Any]]:
        """Return the network at the mean, or at a member: all of the job's tensors, removed weights exactly 0."""
        job, space = self.jobs[row], self.trainer.space
        mean = spread(space, self.where[row], self.strategy.mean(state.strategy) if at is None else at)
        # A buffer that the task left alone comes back as it was: its trip through the device may have rounded it.
        before = _fixed(space, job)
        changed = {name: value for name, value in state.fixed.items() if not np.array_equal(value, before[name])}
        return replaced(job.mask.apply(job.params), {**changed, **mean})


def _fixed(space: Space, job: Job) -> dict[str, jax.Array]:
    # A tensor that is not evolved may be one that the mask covers.
    params = job.mask.apply(job.params)
    return {name: jnp.asarray(value) for name, value in params.items() if name not in space.names}


def _halved(space: Space, mask: Mask) -> int:
    """Return how many survivors are complex: two coordinates each."""
    return sum(int(np.count_nonzero(mask[name])) for name in space.halved if name in mask)


def _row(states: Evolution, row: int) -> Evolution:
    return jax.tree.map(lambda leaf: leaf[row], states)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
