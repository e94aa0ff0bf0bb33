"""The norm of the error vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lottery.search.data_scores import check_logits, data_score
from pruning.mask import Mask

CHUNK = 1024


@data_score("el2n", source="Paul et al. 2021, definition 2.2 (arXiv 2107.07075)")
@torch.no_grad()
def el2n(
    models: Sequence[nn.Module], inputs: torch.Tensor, targets: torch.Tensor, masks: Sequence[Mask] = ()
) -> NDArray[np.float64]:
    """‖softmax(f(x)) − onehot(y)‖₂, from 0 (sure and right) to √2 (sure and wrong): mean over networks.

    Args:
        models: networks early in training; put into evaluation mode.
        inputs: [N, …], where the models are.
        targets: integer labels [N].
        masks: not looked at; the weights themselves are already masked.

    Returns:
        One score for each example, float64 [N].

    Raises:
        DataError: labels that are no integers, or outputs that are no logits.

    >>> zero = nn.Linear(3, 10).requires_grad_(False)
    >>> _ = zero.weight.zero_(), zero.bias.zero_()
    >>> el2n([zero], torch.randn(2, 3), torch.tensor([0, 7])).round(6).tolist()
    [0.948683, 0.948683]
    """
    total = torch.zeros(len(inputs), dtype=torch.float64)
    for model in models:
        model.eval()
        scores = [_norms(model(x), y) for x, y in zip(inputs.split(CHUNK), targets.split(CHUNK), strict=True)]
        total += torch.cat(scores).cpu()
    return (total / len(models)).numpy()


def _norms(outputs: object, targets: torch.Tensor) -> torch.Tensor:
    logits = check_logits(outputs, targets).double()
    return (logits.softmax(1) - F.one_hot(targets, logits.shape[1])).norm(dim=1)
