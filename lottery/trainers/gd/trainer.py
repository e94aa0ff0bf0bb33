"""The gradient-descent trainer."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from lottery.data.batches import Batch, move, training_batches
from lottery.data.parts import Parts, Tensors
from lottery.networks.evaluation import evaluate, failed_loss
from lottery.networks.objectives.objective import Objective, call
from lottery.networks.trainable import freeze_others
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import State, load_state, state_of, unset_buffers
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.augment import AUGMENTATIONS
from lottery.trainers.gd.loop.averaging import Average
from lottery.trainers.gd.loop.best import Best
from lottery.trainers.gd.loop.stepping import Masked, Stepper, in_steps
from lottery.trainers.gd.moving import mover_for, settle
from lottery.trainers.gd.optimizers.given import optimizers_for
from lottery.trainers.gd.optimizers.rates import rates_for
from lottery.trainers.gd.stacked import groups_of, train_stacked
from lottery.trainers.gd.std import ESTIMATORS, Estimator, Training
from pruning.alive_rows import Rows
from pruning.calls.calling import call_once
from pruning.calls.users_code import users_code
from pruning.copies.copying import copy_module
from pruning.errors import BadValue
from pruning.jobs import BEST, Evaluation, Job, Trained, all_finite, stays_finite
from pruning.mask import Mask
from pruning.settings.patience import PATIENCE_ENDED, Patience
from pruning.torch_modules import apply_mask
from pruning.watch import Watch

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
        watch: is told of progress.
        rows: of tensors whose rows a moving mask must not empty, the axes that number them.
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

    @property
    def provides(self) -> frozenset[str]:
        """A standard deviation of every weight, from where the configuration says, and the best weights."""
        return frozenset({"std", BEST})

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        """Yield each job's trained network as it is done; raises `BadValue` for a need it cannot meet."""
        if needs - self.provides:
            raise BadValue(f"the gd trainer does not provide {', '.join(sorted(needs - self.provides))}")
        for group in self._groups(jobs, needs):
            yield from self.train_group(group, needs)

    def together(self, jobs: Sequence[Job], needs: frozenset[str]) -> bool:
        """Say whether any of these jobs would be trained stacked: its bits then depend on the others."""
        return any(len(group) > 1 for group in self._groups(jobs, needs))

    def train_group(self, jobs: Sequence[Job], needs: frozenset[str]) -> list[Trained]:
        """Train jobs that can be stacked in one loop, or one alone."""
        with isolated(self.device, jobs[0].seed, self.threads):
            return [self._train(jobs[0], needs)] if len(jobs) == 1 else train_stacked(self, jobs, needs)

    def _groups(self, jobs: Sequence[Job], needs: frozenset[str]) -> list[Sequence[Job]]:
        with isolated(self.device, 0, self.threads):
            return groups_of(self, jobs, needs)

    def _train(self, job: Job, needs: frozenset[str]) -> Trained:
        model, objective = copy_module(self.model).to(self.device), self.objective.private()
        load_state(model, job.params)
        if not any(module.training for module in model.modules()):
            model.train()
        apply_mask(model, job.mask)  # last: a model may write its weights on `train()`
        frozen = freeze_others(model, self.config.train_only)
        optimizers = optimizers_for(model, self.config)
        estimator = self._estimator(model, optimizers.each[0], job) if "std" in needs else None
        mover = mover_for(self.config, job, model, self.rows)
        mask, explored = job.mask, job.mask
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        scaler = GradScaler(self.device.type) if self.config.precision == "fp16" else None
        stepper = Stepper(optimizers, parameters, self.config.clip_norm, scaler, _masked_parameters(model, mask))
        average = Average(model, self.config.ema) if self.config.ema is not None else None
        augment = AUGMENTATIONS[self.config.augment]
        start, stop, until = job.budget.start, job.budget.stop, job.budget.until
        rates = rates_for(optimizers, self.config, min(start, self.total_steps - 1), self.total_steps)
        every = self.config.eval_every or max(1, self.total_steps // 20)
        history: list[Evaluation] = []
        best = Best() if BEST in needs else None
        patience, ended = Patience(self.config.patience) if self.config.patience is not None else None, None
        snapshots = {start: self._network(model, job)} if start in job.budget.snapshots else {}
        loss_sum, loss_count = torch.zeros((), device=self.device), 0
        each = self.config.accumulate
        batches = training_batches(self.parts.train, self.config.batch_size, job.seed, start * each, stop * each)
        # Tensors are gathered anew for every step; a loader may hand out what its data set keeps.
        once = isinstance(self.parts.train, Tensors) and not optimizers.closure
        forward = call_once if once else call

        def gradients(step: int, batches: list[Batch]) -> torch.Tensor:
            stepper.zero_grad()
            total: torch.Tensor | None = None
            for inputs, targets in batches:
                with users_code(f"the model or the loss at step {step}"):
                    with self._autocast():
                        outputs = forward(model, augment(move(inputs, self.device)))
                        loss = objective.loss(outputs, move(targets, self.device))
                    loss = loss / len(batches) if len(batches) > 1 else loss
                    stepper.backward(loss)
                total = loss.detach() if total is None else total + loss.detach()
            assert total is not None
            return total

        for step, pieces in enumerate(in_steps(batches, each), start=start + 1):
            rates.before(step - 1)
            loss = gradients(step, pieces)
            stepper.unscale()
            moved = mover.moved(model, mask, step) if mover is not None else None
            if moved is not None:
                for optimizer in optimizers.each:
                    settle(model, optimizer, mask, moved)
                mask, explored = moved, explored | moved
                stepper.masked = _masked_parameters(model, mask)
                stepper.skip()
            else:
                stepper.take(step, loss, functools.partial(gradients, step, pieces))
            rates.after(step)
            if average is not None:
                with optimizers.evaluating(model, mask):
                    average.update(model)
                average.apply_mask(mask)
            if estimator is not None:
                estimator.step(step)
            loss_sum, loss_count = loss_sum + loss, loss_count + 1
            if step in job.budget.snapshots:
                with optimizers.evaluating(model, mask):
                    snapshots[step] = self._network(model, job)
            if step % every == 0 or step == stop:
                averaged = average.in_place(model) if average is not None else contextlib.nullcontext()
                with optimizers.evaluating(model, mask), averaged:
                    evaluation = self._evaluate(model, objective, mask, step, float(loss_sum) / loss_count)
                    history.append(evaluation)
                    self.watch.evaluated(job, evaluation)
                    if best is not None:
                        best.seen(evaluation, lambda: self._network(model, job))
                    so_far = Trained(self._network(model, job), list(history), snapshots, mask=mask) if until else None
                rates.evaluated(evaluation.validation_loss)
                loss_sum, loss_count = torch.zeros((), device=self.device), 0
                if (failed := failed_loss(evaluation)) is not None:
                    return _diverged(model, history, failed)
                # Nothing ends before the weights that survivors go back to are there.
                kept = all(snapshot in snapshots for snapshot in job.budget.snapshots)
                if patience is not None and patience.over(evaluation) and kept and step < stop:
                    stop = ended = step
                if so_far is not None and until is not None:
                    stop = step if not stays_finite(so_far.params, job.params) or until(so_far) else stop
            self.watch.stepped(job, step)
            if step == stop < job.budget.stop:
                break
        optimizers.eval(model, mask)
        if average is not None:
            average.write(model)
        params = self._network(model, job)
        if not stays_finite(params, job.params):
            return _diverged(model, history, f"the weights are not finite at step {stop}")
        for parameter in frozen:
            parameter.requires_grad_(True)  # an estimator looks at every weight, trained or not
        std = mask.apply(estimator.result()) if estimator is not None else None
        if std is not None and not all_finite(std):
            return _diverged(model, history, f"the standard deviations are not finite at step {stop}")
        facts: dict[str, Any] = {"explored": explored.density} if mover is not None else {}
        facts |= {PATIENCE_ENDED: ended} if patience is not None else {}
        moved_to = mask if mover is not None else None
        kept = best.params if best is not None else None
        return Trained(params, history, snapshots, std=std, mask=moved_to, best=kept, facts=facts)

    def _estimator(self, model: nn.Module, optimizer: torch.optim.Optimizer, job: Job) -> Estimator:
        training = Training(
            model=model,
            optimizer=optimizer,
            # A removed weight may come in later: what is kept of the estimates is said by the mask at the end.
            job=replace(job, mask=Mask.dense(job.mask.shapes())),
            part=self.parts.train,
            loss=self.objective.loss,
            device=self.device,
            window=self.config.std_window,
            examples=self.config.std_examples,
        )
        return ESTIMATORS[self.config.std](training)

    def _evaluate(self, model: nn.Module, objective: Objective, mask: Mask, step: int, train_loss: float) -> Evaluation:
        # Without gradients eight training batches fit where one fits with them.
        batch = 8 * self.config.batch_size
        with self._autocast():
            validation_loss, validation = evaluate(model, self.parts.validation, objective, self.device, batch, mask)
            test_loss, test = evaluate(model, self.parts.test, objective, self.device, batch, mask)
        has_test = self.parts.test is not None
        return Evaluation(
            step=step,
            train_loss=train_loss,
            validation_loss=validation_loss,
            validation=validation,
            test_loss=test_loss if has_test else None,
            test=test if has_test else None,
        )

    def _network(self, model: nn.Module, job: Job) -> State:
        """Return the job's tensors as they are now: what it began with, and declared buffers that were None.

        A buffer that the forward pass made for itself is none of them.
        """
        known = {*job.params, *unset_buffers(self.model)}
        return {name: value for name, value in state_of(model).items() if name in known}

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        half = _HALVES.get(self.config.precision)
        return contextlib.nullcontext() if half is None else torch.autocast(self.device.type, half)


def _masked_parameters(model: nn.Module, mask: Mask) -> Masked:
    named = dict(model.named_parameters())
    touched = [name for name, keep in mask.items() if not keep.all()]
    keeps = [torch.from_numpy(mask[name].copy()).to(named[name].device, named[name].dtype) for name in touched]
    return Masked([named[name] for name in touched], keeps)


def _diverged(model: nn.Module, history: list[Evaluation], reason: str) -> Trained:
    return Trained(params=state_of(model), history=history, diverged=reason)


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
