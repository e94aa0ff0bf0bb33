"""Evaluation: mean loss and metric over a part."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lottery.data.batch import copied
from lottery.data.batches import evaluation_batches, move
from lottery.data.parts import Loader, Part
from lottery.data.reading import seeded
from lottery.networks.objectives.objective import Objective, call
from lottery.networks.objectives.tallies import Tally
from lottery.state.randomness import seeded_everywhere
from pruning.calls.structures import map_tensors
from pruning.calls.users_code import users_code
from pruning.copies.copying import copy_module
from pruning.jobs import Evaluation
from pruning.mask import Mask
from pruning.torch_modules import apply_mask


def evaluate(
    model: nn.Module,
    part: Part | None,
    objective: Objective,
    device: torch.device,
    batch_size: int,
    mask: Mask | None = None,
    outputs_of: Callable[[Any], Any] | None = None,
) -> tuple[float, float]:
    """Return the mean loss and the metric over `part`, in evaluation mode; NaN for no part.

    It changes nothing: a copy of the model is measured, and no random number is taken that training would have taken.
    The copy is under the mask, as what is handed over in the end is: a model may write its weights on `eval()`.

    Args:
        model: what is measured.
        part: the examples, or None.
        objective: loss and metric.
        device: where the model is.
        batch_size: examples that are looked at at once.
        mask: that the model is under.
        outputs_of: gives the model's outputs for a batch of inputs in its place, where something faster does.

    Raises:
        LotteryError: what the model, the loss or the metric raises, in one line.
    """
    if part is None:
        return float("nan"), float("nan")
    # A loss or a metric of the caller's may count what it sees, too.
    objective = objective.private()
    tally = Tally(objective)
    with torch.no_grad(), _seeded(part), objective.measuring():
        with users_code("the model in evaluation mode"):
            run = outputs_of or InEvaluation(model, mask)
        for inputs, targets in evaluation_batches(part, batch_size):
            # The model gets copies of the inputs (`call`); a loss or a metric may change the targets in place.
            inputs, targets = move(inputs, device), copied(move(targets, device))
            with users_code("the model in evaluation mode"):
                outputs = run(inputs)
            tally.add(outputs, targets)
        return tally.result()


class InEvaluation:
    """Outputs of a model in evaluation mode, computed by a copy: what the copy writes does not reach the training.

    Buffers, counters, caches that grow, random generators that the model holds, adapters that are merged into weights
    on `eval()`: all are the copy's. Gradients are not recorded, unless the model takes some itself and cannot do
    without (forces that are the gradient of an energy).
    """

    def __init__(self, model: nn.Module, mask: Mask | None = None) -> None:
        self._model, self._mask = model, mask
        self._copy = self._made()
        self._gradients = False

    def __call__(self, inputs: Any) -> Any:
        """Return the outputs for a batch, outside of any graph."""
        try:
            with torch.set_grad_enabled(self._gradients):
                outputs = call(self._copy, inputs)
        except RuntimeError as error:
            # PyTorch's words for a gradient of what was not recorded, in both forms that they have.
            if self._gradients or "does not require grad" not in str(error):
                raise
            self._copy, self._gradients = self._made(), True
            return self(inputs)
        return map_tensors(torch.Tensor.detach, outputs) if self._gradients else outputs

    def _made(self) -> nn.Module:
        made = copy_module(self._model).eval()
        return made if self._mask is None else apply_mask(made, self._mask)


def failed_loss(point: Evaluation) -> str | None:
    """Return which loss of an evaluation is not finite, in words; None where a training may go on.

    >>> failed_loss(Evaluation(7, 0.5, float("nan"), 0.9, None, None))
    'the loss on the validation part is not finite at step 7'
    """
    if not math.isfinite(point.train_loss or 0.0):
        return f"the loss is not finite at step {point.step}"
    if not math.isfinite(point.validation_loss or 0.0):
        return f"the loss on the validation part is not finite at step {point.step}"
    return None


def _seeded(part: Part) -> contextlib.AbstractContextManager[None]:
    """A `DataLoader`, and a model that draws in evaluation mode, take from the global generators: give them back."""
    return seeded(part.loader, 0) if isinstance(part, Loader) else seeded_everywhere(0)
