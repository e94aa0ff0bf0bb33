"""Gradient descent on one job.

strides of steps ─▶ learner ─▶ weights ─▶ history ─▶ course: on, or the end

A stride is one step of PyTorch's operations, or the many steps that compiled ones take at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lottery.networks.layout import layout_of
from lottery.networks.objectives.objective import Objective
from lottery.state.tensors import state_of
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.asking import Asking
from lottery.trainers.gd.loop.averaging import Average
from lottery.trainers.gd.loop.best import Best
from lottery.trainers.gd.loop.course import Course, course_of
from lottery.trainers.gd.loop.history import History, MeanLoss, measured
from lottery.trainers.gd.loop.learning import Learns, Losses, learner_for
from lottery.trainers.gd.loop.network import JobNetwork, network_for
from lottery.trainers.gd.loop.snapshots import Snapshots
from lottery.trainers.gd.loop.spread import estimator_for
from lottery.trainers.gd.loop.strides import chain_learner, chain_of
from lottery.trainers.gd.loop.weights import Weights
from lottery.trainers.gd.optimizers.given import optimizers_for
from lottery.trainers.gd.std import Estimator
from lottery.trainers.gd.survivors.choosing import Found, survivors_for
from pruning.jobs import BEST, Job, Trained, all_finite, stays_finite
from pruning.settings.patience import PATIENCE_ENDED


def train_alone(frame: GDFrame, job: Job, needs: frozenset[str]) -> Trained:
    """Train one job by itself.

    Args:
        frame: how to train.
        job: the job to train.
        needs: what to keep beside the trained weights: `std`, `best`.
    """
    going = training_in_strides(frame, job, needs, frame.threads)
    try:
        take = next(going)
        while True:
            take = going.send(take())
    except StopIteration as done:
        return done.value


def training_in_strides(
    frame: GDFrame, job: Job, needs: frozenset[str], threads: int
) -> Generator[Callable[[], Losses], Losses, Trained]:
    """Yield the strides of a training, each as a function to call before the next is asked for; return its result.

    Args:
        frame: how to train.
        job: the job to train.
        needs: what to keep beside the trained weights: `std`, `best`.
        threads: how many may work on a stride at once.
    """
    training = _begun(frame, job, needs, threads)
    for step, stride in training.strides():
        losses = yield functools.partial(training.learner.take, step, stride)
        training.stepped(step, losses)
        if training.course.evaluates(step):
            training.evaluate(step)
        if training.history.failed is not None:
            break
        frame.watch.stepped(job, step)
        if training.course.ended_early(step):
            break
    return training.result()


@dataclass(frozen=True)
class _Training:
    """One training, made of its parts.

    Attributes:
        frame: how to train.
        job: the job to train.
        objective: loss and metric; the loss may count what it sees.
        network: as it is now.
        learner: takes the steps.
        weights: those that are measured and kept.
        spread: estimates a standard deviation of every weight; None where nobody asks for it.
        losses: since the last evaluation.
        snapshots: weights at the steps that the budget names.
        history: evaluations.
        course: when to evaluate and when to end.
        asking: the budget's question; None where it has none.
        facts: what its record says of how it was trained.
    """

    frame: GDFrame
    job: Job
    objective: Objective
    network: JobNetwork
    learner: Learns
    weights: Weights
    spread: Estimator | None
    losses: MeanLoss
    snapshots: Snapshots
    history: History
    course: Course
    asking: Asking | None
    facts: Mapping[str, Any]

    def strides(self) -> Iterator[tuple[int, Any]]:
        """Yield what the learner takes next, and the number of its last step."""
        return self.learner.strides(self.job.budget, self.job.seed, self._is_due)

    def _is_due(self, step: int) -> bool:
        return self.course.evaluates(step) or step in self.job.budget.snapshots

    def stepped(self, step: int, losses: Losses) -> None:
        """Take note of a stride, and keep the snapshots that are due after it."""
        self.losses.add(losses.total, losses.steps)
        self.weights.stepped()
        if self.spread is not None:
            self.spread.step(step)
        self.snapshots.stepped(step, self.weights.to_rewind_to)

    def evaluate(self, step: int) -> None:
        """Add a point to the history, and end the training here where something asks for that."""
        with self.weights.evaluated():
            (loss,) = self.losses.taken()
            model, mask, outputs_of = self.network.model, self.network.mask, self.learner.outputs_of
            point = measured(self.frame, model, self.objective, mask, step, loss, outputs_of)
            self.history.add(point, self.network.state)
            self.frame.watch.evaluated(self.job, point)
            so_far = self._so_far() if self.asking is not None else None
        self.learner.evaluated(point.validation_loss)
        if self.history.failed is not None:
            return
        # Nothing ends before the weights that survivors go back to are there.
        self.course.lose_patience(point, may_end=self.snapshots.complete)
        if so_far is not None and self._is_over(so_far):
            self.course.end(step)

    def _so_far(self) -> Trained:
        points = list(self.history.points)
        return Trained(self.network.state(), points, self.snapshots.kept, mask=self.network.mask)

    def _is_over(self, so_far: Trained) -> bool:
        # Nothing is asked of weights that are no numbers: the result will say that training failed.
        finite = stays_finite(so_far.params, self.job.params)
        return not finite or (self.asking is not None and self.asking.ends(so_far))

    def result(self) -> Trained:
        """Return the result of the training."""
        failed = self.history.failed
        trained = self._finished() if failed is None else self._failed(failed)
        return trained if self.asking is None else self.asking.answered(trained, self.job.budget.stop)

    def _finished(self) -> Trained:
        self.weights.deliver()
        params = self.network.state()
        if not stays_finite(params, self.job.params):
            return self._failed(f"the weights are not finite at step {self.course.stop}")
        self.network.thaw()  # an estimator looks at every weight, trained or not
        std = self.network.mask.apply(self.spread.result()) if self.spread is not None else None
        if std is not None and not all_finite(std):
            return self._failed(f"the standard deviations are not finite at step {self.course.stop}")
        return Trained(
            params,
            self.history.points,
            self.snapshots.kept,
            std=std,
            mask=self.network.mask if self._moves else None,
            best=self.history.best_params,
            facts=self._facts(),
        )

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"explored": self.network.explored.density} if self._moves else {}
        facts |= self.facts
        factors = self.frame.factors.under(self.job.mask)
        facts |= {"lr_factors": factors} if factors else {}
        layout = layout_of(self.network.model)
        facts |= {"layout": layout} if layout is not None else {}
        return facts | ({PATIENCE_ENDED: self.course.impatient_at} if self.course.patience is not None else {})

    @property
    def _moves(self) -> bool:
        # A mask that keeps everything, or nothing, does not move whatever the setting says.
        return self.learner.mover is not None

    def _failed(self, reason: str) -> Trained:
        return Trained(state_of(self.network.model), self.history.points, diverged=reason)


def _begun(frame: GDFrame, job: Job, needs: frozenset[str], threads: int) -> _Training:
    config, objective = frame.config, frame.objective.private()
    network = network_for(frame.model, job, config.train_only, frame.device)
    chain = chain_of(frame, job, needs)
    factors = frame.factors.under(job.mask)
    found = survivors_for(frame, job, network.model, needs) if chain is None else Found()
    if found.survivors is not None:
        network.survivors, factors = found.survivors, found.survivors.renamed(factors)
    with network.at_work():
        optimizers = optimizers_for(network.module, config, factors)
    spread = estimator_for(frame, job, network, optimizers) if "std" in needs else None
    average = Average(network.model, config.ema) if config.ema is not None else None
    snapshots = Snapshots(job.budget.snapshots)
    snapshots.stepped(job.budget.start, network.state)
    question = job.budget.until
    if chain is None:
        learner, facts = learner_for(frame, job, network, optimizers, objective), found.facts
    else:
        learner = chain_learner(frame, chain, job, network, threads)
        facts = {"steps_by": learner.paths.as_json()}
    return _Training(
        frame=frame,
        job=job,
        objective=objective,
        network=network,
        learner=learner,
        weights=Weights(network, optimizers, average),
        spread=spread,
        losses=MeanLoss(torch.zeros((), device=frame.device)),
        snapshots=snapshots,
        history=History(Best() if BEST in needs else None),
        course=course_of(job.budget, config, frame.total_steps),
        asking=Asking(question) if question is not None else None,
        facts=facts,
    )
