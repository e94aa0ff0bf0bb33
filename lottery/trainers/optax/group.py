"""Networks that are trained together, from their rewind points to the end of their budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from es.coordinates import replaced
from es.record import Record, from_arrays, to_arrays
from lottery.data.batches import training_batches
from lottery.networks.evaluation import failed_loss
from lottery.trainers.optax.frame import Frame
from lottery.trainers.optax.keys import with_keys, without_keys
from lottery.trainers.optax.std import Squares, fisher_std
from lottery.trainers.optax.steps import Advance, Arrays, Begin, Chunk, State, evaluated
from pruning.errors import BadValue
from pruning.jobs import Evaluation, Job, Trained, all_finite, stays_finite
from pruning.settings.patience import PATIENCE_ENDED, Patience


@dataclass(frozen=True)
class Compiled:
    """The programs of a search: every level runs the same ones.

    Attributes:
        begin: the optimizers' states before the first step.
        advance: some steps.
        arrays: one network of a group.
        squares: of the gradients of single examples, for a standard deviation.
    """

    begin: Begin
    advance: Advance
    arrays: Arrays
    squares: Squares


# The most steps that are taken without coming back to Python.
_MOST = 256
# Seconds of steps between two updates of the progress bar.
_UPDATE_SECONDS = 0.25


@dataclass(frozen=True)
class Group:
    """Jobs of one budget that are trained together; row i of every state belongs to job i.

    Attributes:
        frame: settings and data.
        compiled: the programs, which all groups share.
        jobs: of one budget.
    """

    frame: Frame
    compiled: Compiled
    jobs: Sequence[Job]

    def train(self, needs: frozenset[str]) -> list[Trained]:
        """Return the result of every job."""
        states, records = self._run(*self._start())
        return [self._result(row, states, record, needs) for row, record in enumerate(records)]

    @property
    def _every(self) -> int:
        return self.frame.config.eval_every or max(1, self.frame.total_steps // 20)

    def _start(self) -> tuple[State, list[Record]]:
        """Return the networks at their rewind points, or as the last checkpoint of an earlier attempt kept them."""
        frame, budget = self.frame, self.jobs[0].budget
        states = self._begun()
        records = [Record(best=job.mask.apply(job.params)) for job in self.jobs]
        if budget.start in budget.snapshots:
            records = [record.with_snapshot(budget.start, record.best) for record in records]
        kept = frame.watch.restore(self.jobs)
        if kept is not None:
            plain, records = from_arrays(without_keys(states), *kept)
            states = with_keys(plain, states)
        for job, record in zip(self.jobs, records, strict=True):
            frame.watch.stepped(job, int(states.step[0]))
            for evaluation in record.history:
                frame.watch.evaluated(job, evaluation)
        return states, records

    def _begun(self) -> State:
        """Return every network at its rewind point, put together on the host."""
        space, start = self.frame.problem.task.space, self.jobs[0].budget.start
        masked = [job.mask.apply(job.params) for job in self.jobs]
        arrays = {name: _stacked([each[name] for each in masked], name in space.halved) for name in masked[0]}
        params = {name: jnp.asarray(arrays[name]) for name in space.names}
        rows = len(self.jobs)
        return State(
            params=params,
            fixed={name: jnp.asarray(value) for name, value in arrays.items() if name not in params},
            optimizer=self.compiled.begin(params, jnp.asarray(self.frame.rates.between(start, start + 1)[0])),
            key=jnp.stack([jax.random.key_data(jax.random.key(job.seed)) for job in self.jobs]),
            step=jnp.asarray(np.full(rows, start, np.int32)),
            loss_sum=jnp.asarray(np.zeros(rows, np.float32)),
        )

    def _keeps(self) -> dict[str, jax.Array]:
        """Return the masks of what is trained, one row for each job."""
        space = self.frame.problem.task.space

        def keep(name: str, job: Job) -> NDArray[np.bool_]:
            own = job.mask[name]
            return np.repeat(own[..., None], 2, axis=-1) if name in space.halved else own

        names = [name for name in space.names if name in self.jobs[0].mask]
        return {name: jnp.asarray(np.stack([keep(name, job) for job in self.jobs])) for name in names}

    def _factors(self) -> dict[str, jax.Array]:
        """Return by what the learning rate of each tensor is multiplied, one number for each job."""
        each = [self.frame.factors.under(job.mask) for job in self.jobs]
        return {name: jnp.asarray(np.array([one[name] for one in each], np.float32)) for name in each[0]}

    def _run(self, states: State, records: list[Record]) -> tuple[State, list[Record]]:
        """Train to the end of the budget; come back for evaluations, snapshots, progress and checkpoints."""
        frame, budget, every = self.frame, self.jobs[0].budget, self._every
        keeps, data, most = self._keeps(), frame.problem.task.train, min(_MOST, every)
        done, count, kept_at = int(states.step[0]), 1, time.monotonic()
        places = _Places(frame, self.jobs, self._factors())
        while done < budget.stop and any(self._ended(record, done) is None for record in records):
            pause = min([(done // every + 1) * every, budget.stop, *(s for s in budget.snapshots if s > done)])
            steps = min(count, pause - done, most)
            began = time.monotonic()
            states = self.compiled.advance(keeps, states, data, places.chunk(done, done + steps, most))
            jax.block_until_ready(states.step)
            count = max(1, min(2 * count, int(steps * _UPDATE_SECONDS / (time.monotonic() - began + 1e-9))))
            done += steps
            for job in self.jobs:
                frame.watch.stepped(job, done)
            if done == pause:
                states, records = self._look(states, records, done, done % every == 0 or done == budget.stop)
            if done < budget.stop and time.monotonic() - kept_at >= frame.config.checkpoint_seconds:
                frame.watch.checkpoint(self.jobs, *to_arrays(without_keys(states), records))
                kept_at = time.monotonic()
        return states, records

    def _look(self, states: State, records: list[Record], done: int, evaluate: bool) -> tuple[State, list[Record]]:
        """Evaluate the networks and keep snapshots, as the budget says for this step."""
        before = max([point.step for record in records for point in record.history], default=self.jobs[0].budget.start)
        seen = []
        for row, (job, record) in enumerate(zip(self.jobs, records, strict=True)):
            if record.history and failed_loss(record.history[-1]) is not None:
                seen.append(record)  # nobody looks at it again; its NaN reach no other
                continue
            arrays = self.compiled.arrays(states, np.int32(row))
            params = self._network(row, arrays)
            if done in job.budget.snapshots:
                record = record.with_snapshot(done, params)
            if evaluate:
                measured = self.frame.problem.task.measure(arrays)
                train_loss = float(states.loss_sum[row]) / (done - before)
                evaluation = Evaluation(done, train_loss, **vars(measured))
                record = record.evaluated(evaluation, params)
                self.frame.watch.evaluated(job, evaluation)
            seen.append(record)
        return (evaluated(states) if evaluate else states), seen

    def _ended(self, record: Record, done: int) -> int | None:
        """Return the step at which a training ended, if that was before the last one of its budget.

        That follows from the record alone, so that a training that is resumed ends where it would have.
        """
        if not record.history:
            return None
        point = record.history[-1]
        if failed_loss(point) is not None:
            return point.step
        most, budget = self.frame.config.patience, self.jobs[0].budget
        if most is None or point.step != done or done >= budget.stop:
            return None
        patience = Patience(most)
        over = [patience.over(evaluation) for evaluation in record.history][-1]
        # Nothing ends before the weights that survivors go back to are there.
        return done if over and all(step in record.snapshots for step in budget.snapshots) else None

    def _result(self, row: int, states: State, record: Record, needs: frozenset[str]) -> Trained:
        frame, job, done = self.frame, self.jobs[row], int(states.step[row])
        arrays = self.compiled.arrays(states, np.int32(row))
        params = self._network(row, arrays)
        failed = failed_loss(record.history[-1])
        if failed is None and not stays_finite(params, job.params):
            failed = f"the weights are not finite at step {done}"
        if failed is not None:
            return Trained(params, record.history, diverged=failed)
        std = None
        if "std" in needs:
            problem, most = frame.problem, frame.config.std_examples
            std = fisher_std(self.compiled.squares, problem.task.train, problem.order, arrays, job, most)
            if not all_finite(std):
                failed = f"the standard deviations are not finite at step {done}"
                return Trained(params, record.history, diverged=failed)
        ended = self._ended(record, done)
        factors = frame.factors.under(job.mask)
        facts: dict[str, Any] = {"lr_factors": factors} if factors else {}
        facts |= {PATIENCE_ENDED: ended} if frame.config.patience is not None else {}
        return Trained(params, record.history, record.snapshots, std=std, best=record.best, facts=facts)

    def _network(self, row: int, arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Return one network on the host: all of the job's tensors, removed weights exactly 0."""
        job, space = self.jobs[row], self.frame.problem.task.space
        start = job.mask.apply(job.params)
        trained = {name: np.asarray(arrays[name]) for name in space.names}
        found = {name: v[..., 0] + 1j * v[..., 1] if name in space.halved else v for name, v in trained.items()}
        for name in start.keys() - found.keys():
            # What nobody wrote comes back as it was: its trip through the device may have rounded it.
            if not np.array_equal(arrays[name], jnp.asarray(start[name]), equal_nan=start[name].dtype.kind in "fc"):
                found[name] = np.asarray(arrays[name])
        return dict(job.mask.apply(replaced(start, found)))


@dataclass(frozen=True)
class _Places:
    """Which examples the steps of a group see, in the order of trainer `gd`, and how far they go."""

    frame: Frame
    jobs: Sequence[Job]
    factors: Mapping[str, jax.Array]

    def chunk(self, start: int, stop: int, most: int) -> Chunk:
        """Return what the steps from `start` to before `stop` look at, padded to `most` steps."""
        problem, rates = self.frame.problem, self.frame.rates.between(start, stop)
        drawn = [list(self._of_job(job, start, stop)) for job in self.jobs]
        rest = most - (stop - start)
        places = np.pad(np.asarray(drawn, np.int32), ((0, 0), (0, rest), (0, 0)))
        if places.shape[-1] != problem.batch_size:
            raise BadValue(f"batches of {places.shape[-1]} examples, not {problem.batch_size}")
        return Chunk(jnp.asarray(places), jnp.asarray(np.pad(rates, (0, rest))), stop - start, self.factors)

    def _of_job(self, job: Job, start: int, stop: int) -> Iterator[NDArray[np.int64]]:
        problem = self.frame.problem
        for places, _ in training_batches(problem.order, problem.batch_size, job.seed, start, stop):
            yield places.numpy()


def _stacked(arrays: Sequence[NDArray[Any]], halved: bool) -> NDArray[Any]:
    """Return arrays with an axis for the networks before their own, complex ones as their halves."""
    stacked = np.stack(arrays)
    return np.stack([np.real(stacked), np.imag(stacked)], axis=-1) if halved else stacked
