"""The norm of a single example's gradient."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap

from lottery.networks.example_gradients import chunk_size
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
    chunk = chunk_size({name: p for name, p in model.named_parameters() if p.requires_grad})
    first = _by_loop(model, removed, inputs[:1], targets[:1])
    try:
        # Control flow that looks at values breaks the transform, in some modules silently.
        trusted = torch.allclose(_by_vmap(model, removed, inputs[:1], targets[:1]), first, rtol=1e-3, atol=1e-12)
    except Exception:  # torch.func refuses in many ways, and autograd can do without it
        trusted = False
    squares = _by_vmap if trusted else _by_loop
    pairs = zip(inputs.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([squares(model, removed, x, y) for x, y in pairs])


def _by_vmap(
    model: nn.Module, removed: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    # The outer switch keeps autograd from recording the other parameters; `grad` looks only at its own.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, inputs, targets)
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for name, gradient in gradients.items():
        total += _masked(gradient, removed.get(name)).double().square().flatten(1).sum(1)
    return total


def _by_loop(
    model: nn.Module, removed: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # There is no backward pass through cuDNN's recurrent layers in evaluation mode.
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for position, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        with torch.backends.cudnn.flags(enabled=not recurrent and torch.backends.cudnn.enabled):
            loss = F.cross_entropy(model(x[None]), y[None])
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                total[position] += _masked(gradient, removed.get(name)).double().square().sum()
    return total


def _masked(gradient: torch.Tensor, removed: torch.Tensor | None) -> torch.Tensor:
    return gradient if removed is None else gradient.masked_fill(removed, 0.0)
