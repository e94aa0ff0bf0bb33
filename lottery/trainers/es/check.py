"""Evolved networks, measured again in PyTorch: the results must equal those that evolution recorded.

Evolution computes with a translation of the module to JAX. Before anything is evolved, it is compared with PyTorch on a
few examples at the first weights; it may not hold for other weights or other examples, and what the compiler makes of
it for a whole population is another thing. So two members of the first generation of every compiled program are judged
by PyTorch too, on the batch that they saw, and the network that comes out is measured once more, on whole parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from es.tasks.control import ControlTask
from es.tasks.supervised import Supervised, size
from es.trainer import ESTrainer
from es.translation.functions import to_jax
from lottery.data.parts import Loader
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.metric import Metric
from lottery.networks.objectives.objective import Objective, call, objective_for
from lottery.networks.sources.source import ModelSource
from lottery.state.machine.device import choose_device
from lottery.state.tensors import float_type, load_state, to_torch
from lottery.trainers import Ask
from pruning.errors import RunError
from pruning.jobs import Evaluation, Job, Params, Trained

# A loss, and a metric that is no mean of hits, may differ by this fraction: sums of float32 in another order.
CLOSE = 1e-3
# Products of matrices on a GPU have a mantissa of ten bits there, unless `precision` says otherwise.
CLOSE_WITH_TF32 = 2e-2
# Values below this are rounding.
NOTHING = 1e-6
# A member's loss may be off by this many times the change that rounding every weight once makes.
ROUNDINGS = 16
# How many observations a policy is compared on.
OBSERVATIONS = 256

Confirm = Callable[[Params, Evaluation], None]


@dataclass(frozen=True)
class CheckedTrainer:
    """Evolves as its trainer does, and hands nothing over that PyTorch does not confirm.

    Attributes:
        trainer: evolves.
        confirm: raises where PyTorch measures another network than evolution did.
    """

    trainer: ESTrainer
    confirm: Confirm

    @property
    def provides(self) -> frozenset[str]:
        """What its trainer provides."""
        return self.trainer.provides

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        """Yield every job's network; raises `RunError` for one that is another in PyTorch."""
        for trained in self.trainer.train(jobs, needs):
            if trained.diverged is None:
                for params, point in _delivered(trained):
                    self.confirm(params, point)
            yield trained

    def together(self, jobs: Sequence[Job], needs: frozenset[str]) -> bool:
        """Say whether any of these jobs would be evolved stacked."""
        return self.trainer.together(jobs, needs)


def checked(ask: Ask, trainer: ESTrainer) -> ESTrainer | CheckedTrainer:
    """Return a trainer whose networks PyTorch measures again, where they are modules of PyTorch."""
    if not isinstance(ask.source, ModelSource):
        return trainer
    if isinstance(trainer.task, ControlTask):
        return CheckedTrainer(trainer, _Policy(ask.source, ask.seed, trainer).confirm)
    assert isinstance(trainer.task, Supervised)
    example = _in_torch(jax.tree.map(lambda leaf: leaf[:1], trainer.task.validation[1]))
    examples = _Examples(ask.source, ask.seed, trainer, objective_for(example, ask.loss, ask.metric))
    return CheckedTrainer(replace(trainer, compare=examples.compare), examples.confirm)


@dataclass(frozen=True)
class _Examples:
    """Confirms losses of members, and loss and metric of what comes out over the whole validation and test parts."""

    source: ModelSource
    seed: int
    trainer: ESTrainer
    objective: Objective

    def confirm(self, params: Params, point: Evaluation) -> None:
        model, task = self.source.build(self.seed), self.trainer.task
        assert isinstance(task, Supervised)
        load_state(model, params)
        device = choose_device("auto")
        close = _close(self.trainer, float_type(model))
        validation_at_once, test_at_once = task.measured_at_once
        for part, recorded, examples, at_once in (
            ("validation", (point.validation_loss, point.validation), task.validation, validation_at_once),
            ("test", (point.test_loss, point.test), task.test, test_at_once),
        ):
            if examples is None:
                continue
            loader = _loader(examples, at_once, float_type(model))
            measured = evaluate(model.to(device), loader, self.objective.private(), device, at_once)
            # where one example more or less is hit, a mean over examples moves by this
            one = 1 / size(examples[1])
            self._same(f"{part} loss", recorded[0], measured[0], point.step, close, 0)
            self._same(f"{part} {self.objective.metric.name}", recorded[1], measured[1], point.step, close, one)

    def compare(self, params: Params, key: jax.Array, recorded: float, generation: int) -> None:
        """Raise `RunError` where PyTorch gives a member another loss on the batches that it saw."""
        model, task = self.source.build(self.seed), self.trainer.task
        assert isinstance(task, Supervised)
        batches = task.seen(key)

        def measured(weights: Params) -> float:
            load_state(model, weights)
            return float(np.mean([self._loss(model, batch) for batch in batches]))

        found, close = measured(params), _close(self.trainer, float_type(model))
        scale = max(abs(recorded), abs(found))
        same = not (math.isfinite(recorded) or math.isfinite(found)) or abs(recorded - found) <= close * scale + NOTHING
        # how far it moves when every weight moves by a rounding: of some networks nobody knows the loss more exactly
        if not same and not abs(recorded - found) <= ROUNDINGS * abs(measured(_moved(params, self.seed)) - found):
            count = size(batches[0][1])
            raise _other_network(
                self.source.name,
                f"a loss of {recorded:.6g} for a member of generation {generation} on {count} examples",
                f"{found:.6g}",
                close,
                f"the compiled program for a population of {self.trainer.config.population} is wrong at that size, and "
                "nothing is evolved; try another batch_size or population",
            )

    def _loss(self, model: nn.Module, batch: Any) -> float:
        device, count = choose_device("auto"), size(batch[1])
        objective = replace(self.objective, metric=Metric("nothing", lambda outputs, targets: 0.0, additive=True))
        return evaluate(model.to(device), _loader(batch, count, float_type(model)), objective, device, count)[0]

    def _same(self, what: str, recorded: float | None, measured: float, step: int, close: float, one: float) -> None:
        recorded = math.nan if recorded is None else recorded
        scale = max(abs(recorded), abs(measured))
        if not self.objective.metric.is_fraction:
            one *= 2 * max(1.0, scale)
        both_undefined = math.isnan(recorded) and math.isnan(measured)
        if not (both_undefined or recorded == measured or abs(recorded - measured) <= close * scale + one + NOTHING):
            raise _other_network(
                self.source.name, f"a {what} of {recorded:.6g} at generation {step}", f"{measured:.6g}", close
            )


@dataclass(frozen=True)
class _Policy:
    """Compares the actions of a policy on observations; episodes themselves are played in JAX only."""

    source: ModelSource
    seed: int
    trainer: ESTrainer

    def confirm(self, params: Params, point: Evaluation) -> None:
        model, task = self.source.build(self.seed).eval(), self.trainer.task
        assert isinstance(task, ControlTask)
        load_state(model, params)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        shape = (OBSERVATIONS, *task.environment.observation_shape)
        scale = 10 ** rng.uniform(-1, 1, (OBSERVATIONS, *[1] * (len(shape) - 1)))
        observations = (scale * rng.standard_normal(shape)).astype(np.float32)
        with torch.no_grad():
            in_torch = call(model, torch.from_numpy(observations).to(float_type(model)))
        wanted = np.asarray(in_torch.double())
        network = {name: jnp.asarray(value) for name, value in params.items()}
        with jax.default_matmul_precision("highest"):
            found = np.asarray(task.network.apply(to_jax(network), to_jax(observations)), np.float64)
        close, scale = _close(self.trainer, float_type(model)), float(np.sqrt(np.mean(wanted**2)))
        gap = float(np.max(np.abs(wanted - found)))
        if not gap <= close * scale + NOTHING:
            place = np.unravel_index(np.argmax(np.abs(wanted - found)), wanted.shape)
            raise _other_network(
                self.source.name,
                f"an output of {found[place]:.6g} at generation {point.step}",
                f"{wanted[place]:.6g}",
                close,
            )


def _delivered(trained: Trained) -> Iterator[tuple[Params, Evaluation]]:
    """Yield the networks that are handed over, each with what was recorded for it."""
    yield trained.params, trained.history[-1]
    if trained.best is not None:
        best = min(trained.history, key=_loss)
        if best.step != trained.history[-1].step:
            yield trained.best, best


def _loss(point: Evaluation) -> float:
    loss = point.validation_loss
    return math.inf if loss is None or math.isnan(loss) else loss


def _close(trainer: ESTrainer, dtype: torch.dtype) -> float:
    rounds = trainer.devices[0].platform != "cpu" and trainer.config.precision != "float32"
    return max(CLOSE_WITH_TF32 if rounds else CLOSE, 8 * torch.finfo(dtype).eps)


def _loader(examples: Any, at_once: int, dtype: torch.dtype) -> Loader:
    """Return a part in batches, in the order that evolution has."""
    batches = [
        _in_torch(jax.tree.map(lambda leaf, start=start: leaf[start : start + at_once], examples), dtype)
        for start in range(0, size(examples), at_once)
    ]
    return Loader(DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def _in_torch(tree: Any, dtype: torch.dtype | None = None) -> Any:
    """Return a pytree of JAX arrays as tensors; JAX has no int64, which is what PyTorch wants of labels."""

    def tensor(leaf: Any) -> torch.Tensor:
        made = to_torch(np.asarray(leaf))
        if made.dtype == torch.int32:
            return made.long()
        return made.to(dtype) if dtype is not None and made.is_floating_point() else made

    return jax.tree.map(tensor, tree)


def _moved(params: Params, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return the parameters with every number moved by about one rounding."""
    rng = np.random.Generator(np.random.PCG64(seed))

    def moved(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            return array
        step = min(float(jnp.finfo(array.dtype).eps), 1.0) if array.dtype.itemsize < 8 else float(jnp.finfo("f4").eps)
        return (array * (1 + step * rng.choice([-1.0, 1.0], array.shape))).astype(array.dtype)

    return {name: moved(np.asarray(value)) for name, value in params.items()}


_TRANSLATION = (
    "the translation of the model, the loss or the metric to JAX does not hold there, and this training is not stored"
)


def _other_network(model: str, recorded: str, measured: str, close: float, why: str = _TRANSLATION) -> RunError:
    return RunError(
        f"evolution recorded {recorded} for model {model!r}, and PyTorch gives {measured} for the same weights (a "
        f"fraction of {close:g} is allowed): {why}; train it with trainer 'gd', or evolve a JAX model (params, apply)"
    )
