"""Gradients between the backward pass and the optimizer: masked and clipped, dense or sparse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def mask_gradients(masked: Sequence[nn.Parameter], keeps: Sequence[torch.Tensor]) -> None:
    """Set the gradients of removed weights to 0.

    Args:
        masked: parameters that have lost weights.
        keeps: their masks, as numbers on the device.
    """
    present = [(p, p.grad, keep) for p, keep in zip(masked, keeps, strict=True) if p.grad is not None]
    dense = [(gradient, keep) for _, gradient, keep in present if not gradient.is_sparse]
    if dense:
        # The multi-tensor product that torch.optim uses: one call for all tensors.
        torch._foreach_mul_([g for g, _ in dense], [keep for _, keep in dense])  # pyright: ignore[reportPrivateImportUsage]
    for parameter, gradient, keep in present:
        if gradient.is_sparse:
            parameter.grad = gradient.coalesce() * keep


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Scale all gradients so that their joint norm is no larger than `largest`, as `clip_grad_norm_` does."""
    present = [p.grad for p in parameters if p.grad is not None]
    if not any(gradient.is_sparse for gradient in present):
        torch.nn.utils.clip_grad_norm_(parameters, largest)
        return
    # A sparse gradient may hold one row several times: its norm is that of their sum.
    whole = [gradient.coalesce() if gradient.is_sparse else gradient for gradient in present]
    norms = [(gradient.values() if gradient.is_sparse else gradient).norm() for gradient in whole]
    scale = (largest / (torch.stack(norms).norm() + 1e-6)).clamp(max=1.0)
    for gradient in present:
        gradient.mul_(scale)
