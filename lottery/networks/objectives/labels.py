"""Class labels: checks that every trainer makes before it trains with its default loss."""

from __future__ import annotations

import torch

from lottery.data.parts import Parts, Tensors
from lottery.networks.objectives.class_losses import IGNORED
from pruning.errors import DataError


def check_labels(parts: Parts) -> None:
    """Raise `DataError` for class labels below 0, which no classification loss can take, and for parts without any.

    The label −100 is none: the default loss and the default accuracy leave it out.
    """
    for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        if not isinstance(part, Tensors) or not isinstance(part.targets, torch.Tensor):
            continue
        if part.targets.dtype != torch.int64:
            continue
        counted = part.targets[part.targets != IGNORED]
        if not len(counted):
            raise DataError(f"{name} labels are all {IGNORED}, which is no label: nothing can be measured on them")
        if int(counted.min()) < 0:
            raise DataError(
                f"{name} labels out of range: the smallest is {int(counted.min())}, expected 0 or more "
                f"({IGNORED} where a label does not count)"
            )


def check_outputs(shape: tuple[int, ...], parts: Parts) -> None:
    """Raise `DataError` where outputs of this shape, with the classes along axis 1, cannot name every label."""
    highest = max(
        int(part.targets.max()) if isinstance(part, Tensors) else 0
        for part in (parts.train, parts.validation, parts.test)
    )
    if len(shape) > 1 and shape[1] <= highest:
        raise DataError(f"labels out of range: the model has {shape[1]} outputs and the data has label {highest}")
