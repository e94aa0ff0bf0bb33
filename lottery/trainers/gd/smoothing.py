"""Label smoothing: the default loss, where a search asks for it."""

from __future__ import annotations

from dataclasses import replace

import torch

from lottery.data.parts import Parts
from lottery.networks.objectives.class_losses import smoothed_cross_entropy
from lottery.trainers import Ask
from pruning.errors import BadValue


def smoothed(ask: Ask) -> Ask:
    """Return what the trainer is asked, with the loss that its `label_smoothing` stands for; the metric stays.

    Raises:
        BadValue: a loss of the caller's own, or labels that are no classes.
    """
    smoothing = getattr(ask.config, "label_smoothing", 0.0)
    if not smoothing:
        return ask
    if ask.loss is not None:
        raise BadValue(
            "label_smoothing is of the default cross-entropy, and a loss was given: smooth in it "
            "(CrossEntropyLoss(label_smoothing=…)), or leave one of the two out"
        )
    targets = ask.parts.example[1] if isinstance(ask.parts, Parts) else None
    if not isinstance(targets, torch.Tensor) or targets.is_floating_point() or targets.dtype == torch.bool:
        raise BadValue("label_smoothing is of the default cross-entropy, which needs whole numbers as labels")
    return replace(ask, loss=smoothed_cross_entropy(smoothing))
