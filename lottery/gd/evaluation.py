"""Evaluation: mean loss and metric over a part."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from lottery.data.parts import Loader, Part
from lottery.data.reading import seeded
from lottery.gd.batches import evaluation_batches, move, size
from lottery.objective import Objective, call
from lottery.torch_state import buffers_kept
from pruning.errors import DataError


def evaluate(
    model: nn.Module, part: Part | None, objective: Objective, device: torch.device, batch_size: int
) -> tuple[float, float]:
    """Return the mean loss and the mean metric over `part`, in evaluation mode; NaN for no part.

    Takes no random number that training would have taken: whether there is a test part changes nothing. Every
    layer's mode is restored: a frozen batch norm may be in evaluation mode all along.
    """
    if part is None:
        return float("nan"), float("nan")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    total, count = torch.zeros(2, dtype=torch.float64), 0
    with buffers_kept(model), torch.inference_mode(), _undisturbed(part), objective.measuring():
        for inputs, targets in evaluation_batches(part, batch_size):
            inputs, targets = move(inputs, device), move(targets, device)
            outputs = call(model, inputs)
            examples = size(targets)
            total += measure(objective, outputs, targets).cpu() * examples
            count += examples
    for module, training in modes:
        module.training = training
    loss, metric = (total / count).tolist()
    return loss, metric


def measure(objective: Objective, outputs: Any, targets: Any) -> torch.Tensor:
    """Return loss and metric of one batch as a float64 tensor of two; a metric may return a plain number."""
    named = {"loss": objective.loss(outputs, targets), "metric": objective.metric.function(outputs, targets)}
    values = {name: torch.as_tensor(value).double().cpu() for name, value in named.items()}
    for name, value in values.items():
        if value.numel() != 1:
            raise DataError(f"the {name} must return one number for a batch, not shape {tuple(value.shape)}")
    return torch.stack([value.reshape(()) for value in values.values()])


def _undisturbed(part: Part) -> contextlib.AbstractContextManager[None]:
    """A `DataLoader` draws from the global generator whenever it is iterated; give that back as it was."""
    return seeded(part.loader, 0) if isinstance(part, Loader) else contextlib.nullcontext()
