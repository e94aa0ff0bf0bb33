"""The norm of a single example's gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lottery.data.batch import chunks, size
from lottery.data.batches import Batch
from lottery.networks.example_gradients import (
    NetworkLoss,
    chunk_size,
    differentiable,
    gradients_at_once,
    gradients_one_by_one,
)
from lottery.search.data_scores import check_logits, data_score
from pruning.mask import Mask


@data_score("grand", source="Paul et al. 2021, definition 2.1 (arXiv 2107.07075)")
def grand(
    models: Sequence[nn.Module], inputs: torch.Tensor, targets: torch.Tensor, masks: Sequence[Mask] = ()
) -> NDArray[np.float64]:
    """‖∇_θ ℓ(f(x), y)‖₂ with the cross-entropy ℓ, over all trainable parameters: mean over networks.

    At initialization it follows the norm of the inputs and prunes no better than chance (Kirsch 2023, arXiv
    2303.14753): train first.

    Args:
        models: networks early in training; put into evaluation mode.
        inputs: [N, …], where the models are.
        targets: integer labels [N].
        masks: one for each model, or none: removed weights have no gradient.

    Returns:
        One score for each example, float64 [N].

    Raises:
        DataError: labels that are no integers, or outputs that are no logits.
        BadValue: a model that does not take single examples.

    >>> zero = nn.Linear(3, 10)
    >>> _ = zero.requires_grad_(False).weight.zero_(), zero.bias.zero_(), zero.requires_grad_(True)
    >>> x = torch.tensor([[2.0, 2.0, 4.0]])  # 0.948683 · √(‖x‖² + 1)
    >>> grand([zero], x, torch.tensor([0])).round(5).tolist()
    [4.74342]
    """
    total = torch.zeros(len(inputs), dtype=torch.float64)
    for position, model in enumerate(models):
        model.eval()
        with torch.no_grad():
            check_logits(model(inputs[:1]), targets[:1])
        removed = _removed(masks[position], inputs.device) if masks else {}
        total += _squared_norms(model, removed, inputs, targets).sqrt().cpu()
    return (total / len(models)).numpy()


def _removed(mask: Mask, device: torch.device) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(~keep).to(device) for name, keep in mask.items()}


def _squared_norms(
    model: nn.Module, removed: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return [N] squared norms: by a transform of many examples at once, where it gives what autograd gives."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    network = NetworkLoss(model, weights, F.cross_entropy, asker="data score 'grand'", instead="'el2n'")
    first = _by_loop(network, removed, (inputs[:1], targets[:1]))
    try:
        # Control flow that looks at values breaks the transform, in some modules silently.
        trusted = torch.allclose(_by_vmap(network, removed, (inputs[:1], targets[:1])), first, rtol=1e-3, atol=1e-12)
    except Exception:  # torch.func refuses in many ways, and autograd can do without it
        trusted = False
    squares = _by_vmap if trusted else _by_loop
    return torch.cat([squares(network, removed, part) for part in chunks((inputs, targets), chunk_size(weights))])


def _by_vmap(network: NetworkLoss, removed: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    total = torch.zeros(size(batch), dtype=torch.float64, device=batch[1].device)
    for name, gradient in gradients_at_once(network)(batch).items():
        total += _masked(gradient, removed.get(name)).double().square().flatten(1).sum(1)
    return total


def _by_loop(network: NetworkLoss, removed: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    total = torch.zeros(size(batch), dtype=torch.float64, device=batch[1].device)
    with differentiable(network.model):
        for position, gradients in enumerate(gradients_one_by_one(network, batch)):
            for name, gradient in gradients.items():
                total[position] += _masked(gradient, removed.get(name)).double().square().sum()
    return total


def _masked(gradient: torch.Tensor, removed: torch.Tensor | None) -> torch.Tensor:
    return gradient if removed is None else gradient.masked_fill(removed, 0.0)
