"""Evaluation: mean loss and metric over a part."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import nn

from lottery.data.batch import copied
from lottery.data.parts import Loader, Part
from lottery.data.reading import seeded
from lottery.gd.batches import evaluation_batches, move
from lottery.objective import Objective, call
from lottery.randomness import seeded_everywhere
from lottery.tallies import Tally
from lottery.torch_state import buffers_kept
from pruning.jobs import Evaluation
from pruning.users_code import users_code


def evaluate(
    model: nn.Module, part: Part | None, objective: Objective, device: torch.device, batch_size: int
) -> tuple[float, float]:
    """Return the mean loss and the metric over `part`, in evaluation mode; NaN for no part.

    It changes nothing: every layer gets its mode back (a frozen batch norm may be in evaluation mode all along) and
    every buffer its values, and no random number is taken that training would have taken.

    Raises:
        LotteryError: what the model, the loss or the metric raises, in one line.
    """
    if part is None:
        return float("nan"), float("nan")
    tally = Tally(objective)
    with torch.no_grad(), undisturbed(model), _seeded(part), objective.measuring():
        for inputs, targets in evaluation_batches(part, batch_size):
            # The model gets copies of the inputs (`call`); a loss or a metric may change the targets in place.
            inputs, targets = move(inputs, device), copied(move(targets, device))
            with users_code("the model in evaluation mode"):
                outputs = call(model, inputs)
            tally.add(outputs, targets)
        return tally.result()


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


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; every layer's mode and every buffer are afterwards as they were."""
    with buffers_kept(model), evaluating(model):
        yield


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and give every layer its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _seeded(part: Part) -> contextlib.AbstractContextManager[None]:
    """A `DataLoader`, and a model that draws in evaluation mode, take from the global generators: give them back."""
    return seeded(part.loader, 0) if isinstance(part, Loader) else seeded_everywhere(0)
