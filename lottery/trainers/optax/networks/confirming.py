"""Networks that were trained in translation, measured again in PyTorch: the results must be those that were recorded.

A translation is compared with PyTorch before anything is trained, on a few examples at the first weights; it may not
hold for other weights.
"""

from __future__ import annotations

from collections.abc import Callable

from es.translation.arrays import to_torch
from lottery.data.part import Tensors
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.objective import objective_for
from lottery.networks.sources.source import ModelSource
from lottery.state.machine.device import choose_device
from lottery.state.tensors import load_state
from lottery.trainers import Ask
from lottery.trainers.optax.networks.problem import Problem
from pruning.errors import RunError
from pruning.jobs import Trained

# A loss may differ by this fraction: sums in another order. In half precision by far more.
CLOSE = {"float32": 1e-3, "bf16": 5e-2}
# Values below this are rounding.
NOTHING = 1e-6

Confirm = Callable[[Trained], None]


def confirming(ask: Ask, problem: Problem) -> Confirm | None:
    """Return what raises `RunError` for a network that PyTorch measures otherwise; None where PyTorch has none."""
    source, task = ask.source, problem.task
    if not isinstance(source, ModelSource):
        return None
    part = Tensors(*to_torch(task.validation))
    objective, device, close = objective_for(part.targets, ask.loss, ask.metric), choose_device("auto"), CLOSE

    def confirm(trained: Trained) -> None:
        point = trained.history[-1]
        recorded = point.validation_loss
        if trained.diverged is not None or recorded is None:
            return
        model = source.build(ask.seed)
        load_state(model, trained.params)
        found, _ = evaluate(model.to(device), part, objective.private(), device, task.measured_at_once[0])
        scale = max(abs(recorded), abs(found))
        if not abs(recorded - found) <= close[ask.config.precision] * scale + NOTHING:
            raise RunError(
                f"trainer 'optax' recorded a validation loss of {recorded:.6g} for model {source.name!r} at step "
                f"{point.step}, and PyTorch gives {found:.6g} for the same weights: the translation of the model or "
                "the loss to JAX does not hold there, and this training is not stored; use trainer 'gd'"
            )

    return confirm
