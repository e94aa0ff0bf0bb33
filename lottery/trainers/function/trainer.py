"""The trainer that hands every job to a function of the caller's."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lottery.data.parts import Part, Parts
from lottery.networks.evaluation import evaluate, failed_loss
from lottery.networks.objectives.objective import Objective
from lottery.state.tensors import State, load_state, state_of, to_numpy
from lottery.trainers.gd.trainer import isolated
from pruning.calls.users_code import users_code
from pruning.copies.copying import copy_module
from pruning.errors import BadValue, RunError, shown
from pruning.jobs import Evaluation, Job, Trained, stays_finite
from pruning.mask import Mask
from pruning.masks.names import match_names
from pruning.torch_modules import hold_mask
from pruning.watch import Watch


@dataclass(frozen=True)
class TrainingBudget:
    """How long the caller's loop is to train a network, and where.

    Attributes:
        start: the step at which training begins: 0, or k after a rewind to step k.
        stop: the step at which it ends.
        total: steps of a whole training, the length of a learning-rate schedule.
        epochs: the length from start to stop, in passes over the training part.
        seed: the seed of everything random in this training; Python, NumPy and PyTorch are seeded with it already.
        device: where the model is.
    """

    start: int
    stop: int
    total: int
    epochs: float
    seed: int
    device: torch.device

    @property
    def steps(self) -> int:
        """How many steps lie between start and stop."""
        return self.stop - self.start


@dataclass(frozen=True)
class LoopTrainer:
    """Trains by the caller's own loop, which gets each network at its rewind point, with its mask held.

    A training that keeps its weights at step k on the way is two: to k, and on from there. What the function keeps
    (an optimizer's state) begins anew at k, as it does after a rewind to k.

    Attributes:
        model: the architecture; its weights are never used nor changed.
        train_one: `train(model, mask)` or `train(model, mask, budget)`.
        measure: the loss on the validation part, the metric on it, and both on the test part, of a network.
        total_steps: the number of steps of a whole training.
        steps_per_epoch: of the training part.
        device: where networks are.
        watch: receives progress.
    """

    model: nn.Module
    train_one: Callable[..., Any]
    measure: Callable[[nn.Module], Sequence[float | None]]
    total_steps: int
    steps_per_epoch: int
    device: torch.device
    watch: Watch

    @property
    def provides(self) -> frozenset[str]:
        """Nothing but trained weights."""
        return frozenset()

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        """Yield each job's trained network as it is done; raises `BadValue` for a need it cannot meet."""
        if needs:
            raise BadValue(f"trainer 'function' does not provide {', '.join(sorted(needs))}")
        for job in jobs:
            with isolated(self.device, job.seed, torch.get_num_threads()):
                yield self._train(job)

    def _train(self, job: Job) -> Trained:
        budget, state = job.budget, job.mask.apply(job.params)
        snapshots: dict[int, State] = {budget.start: state} if budget.start in budget.snapshots else {}
        between = sorted(step for step in budget.snapshots if budget.start < step < budget.stop)
        for start, stop in itertools.pairwise((budget.start, *between, budget.stop)):
            state = self._trained(job, state, start, stop)
            if not stays_finite(state, job.params):
                return Trained(state, [], diverged=f"the weights are not finite at step {stop}")
            if stop in budget.snapshots:
                snapshots[stop] = state
        loss, metric, test_loss, test = self.measure(self._network(state))
        point = Evaluation(budget.stop, None, loss, metric, test_loss, test)
        self.watch.evaluated(job, point)
        self.watch.stepped(job, budget.stop)
        if (failed := failed_loss(point)) is not None:
            return Trained(state, [point], diverged=failed)
        return Trained(state, [point], snapshots)

    def _trained(self, job: Job, state: Mapping[str, Any], start: int, stop: int) -> State:
        """Train a network between two steps with the caller's function, and check the result."""
        model = hold_mask(self._network(state), job.mask)
        epochs = (stop - start) / self.steps_per_epoch
        budget = TrainingBudget(start, stop, self.total_steps, epochs, job.seed, self.device)
        with users_code(f"train (steps {start:,} to {stop:,})"), torch.enable_grad():
            returned = self.train_one(*(model, job.mask, budget)[: arguments(self.train_one)])
        return _checked(returned, model, job)

    def _network(self, state: Mapping[str, Any]) -> nn.Module:
        model = copy_module(self.model).to(self.device)
        load_state(model, state)
        if not any(module.training for module in model.modules()):
            model.train()
        return model


def arguments(function: Callable[..., Any]) -> int:
    """Return how many of model, mask and budget a function takes: 2 or 3.

    Raises:
        BadValue: a function of anything else.
    """
    signature = inspect.signature(function)
    for count in (3, 2):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count
    raise BadValue(
        f"train must be a function of (model, mask, budget) or (model, mask), not of {shown(str(signature))}"
    )


def measured_on(parts: Parts, objective: Objective, device: torch.device, batch_size: int) -> Any:
    """Return a function that measures a network's loss and metric on the validation and the test part."""

    def measure(model: nn.Module) -> Sequence[float | None]:
        def on(part: Part | None) -> tuple[float | None, float | None]:
            return evaluate(model, part, objective, device, 8 * batch_size) if part is not None else (None, None)

        return *on(parts.validation), *on(parts.test)

    return measure


def measured_by(function: Callable[[nn.Module], Any]) -> Any:
    """Return a function that measures a network by the caller's own `evaluate`.

    >>> measured_by(lambda model: model.weight.numel())(nn.Linear(2, 3))
    (None, 6.0, None, None)
    """

    def measure(model: nn.Module) -> Sequence[float | None]:
        with users_code("evaluate"), torch.no_grad():
            value = function(model.eval())
            try:
                number = float(value)
            except (TypeError, ValueError) as error:
                raise RunError(f"evaluate must return one number, not {shown(value)}") from error
        return None, number, None, None

    return measure


def _checked(returned: Any, model: nn.Module, job: Job) -> State:
    """Return the tensors that the caller's function returned; names, shapes and mask must be the job's."""
    state = _tensors(returned, model)
    if not job.params.keys() <= state.keys():  # a wrapper may have put something before every name
        try:
            state = {known: state[name] for name, known in match_names(state, job.params).items()}
        except Exception as error:
            raise RunError(f"train returned another network than it was given: {error}; {_RETURN}") from error
    absent = [name for name in job.params if name not in state]
    if absent:
        raise RunError(f"train returned a network without {absent[0]!r}; {_RETURN}")
    prunable = set(job.mask)
    for name, start in job.params.items():
        if name in prunable and state[name].shape != start.shape:
            there = f"{tuple(state[name].shape)}, and it was {tuple(start.shape)}"
            raise RunError(f"train returned {name!r} of shape {there}; {_RETURN}")
    found = {name: state[name].astype(start.dtype, copy=False) for name, start in job.params.items()}
    _check_masked(found, job.mask)
    return found


_RETURN = "train the model that it is given, in place, or return one of the same architecture, or its state dict"


def _tensors(returned: Any, model: nn.Module) -> State:
    if returned is None:
        return state_of(model)
    if isinstance(returned, nn.Module):
        return state_of(returned)
    if isinstance(returned, Mapping) and all(isinstance(v, torch.Tensor | np.ndarray) for v in returned.values()):
        return {str(n): to_numpy(v) if isinstance(v, torch.Tensor) else np.asarray(v) for n, v in returned.items()}
    raise RunError(f"train returned a {type(returned).__name__}; {_RETURN}")


def _check_masked(state: State, mask: Mask) -> None:
    for name, keep in mask.items():
        revived = int((state[name][~keep] != 0).sum())
        if revived:
            raise RunError(
                f"train returned {revived:,} removed weights of {name!r} that are not 0: train the model that it is "
                "given, which holds its mask, or apply it at the end: mask.apply(model)"
            )
