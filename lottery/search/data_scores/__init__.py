"""Data scores: what makes a training example worth keeping. One small file each, found by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning.errors import DataError
from pruning.mask import Mask
from pruning.registry import Registry, summary_of

DataScore = Callable[[Sequence[nn.Module], torch.Tensor, torch.Tensor, Sequence[Mask]], NDArray[np.float64]]

FunctionT = TypeVar("FunctionT", bound=DataScore)

DATA_SCORES: Registry[DataScore] = Registry("data score", "lottery.search.data_scores", listed="data-scores")


def data_score(name: str, *, source: str) -> Callable[[FunctionT], FunctionT]:
    """Register `score(models, inputs, targets, masks)`; its docstring's first line is its summary.

    A score gives one number for each example, the mean over the models; a higher one is a harder example. The models
    are in evaluation mode afterwards. `masks` (one for each model, or none) say which weights are there.

    Args:
        name: the name that users type.
        source: the paper that defines it.
    """

    def register(function: FunctionT) -> FunctionT:
        DATA_SCORES.add(name, function, summary_of(function), source)
        return function

    return register


def check_logits(outputs: object, targets: torch.Tensor) -> torch.Tensor:
    """Return a model's outputs; raises `DataError` unless they are logits [N, classes] for integer labels [N].

    >>> check_logits(torch.zeros(2, 3), torch.tensor([0, 2])).shape
    torch.Size([2, 3])
    >>> check_logits(torch.zeros(2, 3), torch.tensor([0, 3]))
    Traceback (most recent call last):
    pruning.errors.DataError: labels out of range: the model has 3 outputs
    """
    shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if targets.dtype != torch.int64 or targets.dim() != 1:
        given = f"{targets.dtype} labels {[*targets.shape]}"
        raise DataError(f"data scores need one integer label (int64) an example, not {given}")
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2 or len(outputs) != len(targets):
        raise DataError(f"data scores need logits [examples, classes], and the model returns {shape}")
    if int(targets.max()) >= outputs.shape[1] or int(targets.min()) < 0:
        raise DataError(f"labels out of range: the model has {outputs.shape[1]} outputs")
    return outputs
