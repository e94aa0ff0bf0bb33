"""Evaluation: mean loss and metric over a part."""

from __future__ import annotations

import torch
from torch import nn

from lottery.data.parts import Part
from lottery.gd.batches import evaluation_batches, move, size
from lottery.objective import Objective, call

EVALUATION_BATCH = 2_000


def evaluate(model: nn.Module, part: Part | None, objective: Objective, device: torch.device) -> tuple[float, float]:
    """Return the mean loss and the mean metric over `part`, in evaluation mode; NaN for no part.

    Every layer's mode is restored: a frozen batch norm may be in evaluation mode all along.
    """
    if part is None:
        return float("nan"), float("nan")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    total, count = torch.zeros(2, dtype=torch.float64), 0
    with torch.inference_mode():
        for inputs, targets in evaluation_batches(part, EVALUATION_BATCH):
            inputs, targets = move(inputs, device), move(targets, device)
            outputs = call(model, inputs)
            examples = size(targets)
            losses = torch.stack([objective.loss(outputs, targets), objective.metric.function(outputs, targets)])
            total += losses.double().cpu() * examples
            count += examples
    for module, training in modes:
        module.training = training
    loss, metric = (total / count).tolist()
    return loss, metric
