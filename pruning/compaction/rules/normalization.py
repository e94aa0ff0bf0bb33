"""Batch norm in eval mode: a scale and a shift for each channel. Other norms mix channels, and are dense."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pruning.compaction.channels import Carry, Change, Channels, Cut, Link, unknown_where_infinite
from pruning.compaction.rules import Operation, rule

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(operation: Operation) -> Carry | None:
    """Scale and shift by the running statistics; without them batch norm looks at the batch, and is dense."""
    module = operation.module
    assert isinstance(module, BatchNorm)
    if operation.lone is None or module.running_mean is None or module.running_var is None:
        return None
    source, channels = operation.lone
    if channels.axis != 1 or len(operation.shape_of(source)) < 2:
        return None
    scale, shift = scale_and_shift(module)
    removed = np.zeros(channels.width, bool)
    if module.affine and module.weight in operation.kept:
        removed = ~operation.kept[module.weight]
    constant = unknown_where_infinite(np.where(removed, shift, channels.constant * scale + shift))
    each = np.arange(channels.width)

    def narrow(cut: Cut) -> Change:
        if cut.outputs.all():
            return Change()
        return Change(narrowed(module, cut), _kept(operation, module, cut))

    links = (Link(source, 1, each, each, ~removed),)
    return Carry(Channels(1, constant), links, narrow)


def scale_and_shift(module: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift of batch norm in eval mode for each channel, in float64: y = scale · x + shift.

    scale = γ / √(σ² + ε), shift = β − scale · μ (Ioffe & Szegedy 2015, algorithm 2).

    >>> norm = nn.BatchNorm1d(1, eps=0.0)
    >>> for tensor, number in zip((norm.bias.data, norm.running_mean, norm.running_var), (5, 3, 4)):
    ...     _ = tensor.fill_(number)
    >>> scale_and_shift(norm)
    (array([0.5]), array([3.5]))
    """
    assert module.running_mean is not None
    assert module.running_var is not None
    mean, variance = (_numbers(value) for value in (module.running_mean, module.running_var))
    scale = 1.0 / np.sqrt(variance + module.eps)
    shift = np.zeros_like(scale)
    if module.affine:
        scale, shift = scale * _numbers(module.weight), _numbers(module.bias)
    return scale, shift - scale * mean


def narrowed(module: BatchNorm, cut: Cut) -> BatchNorm:
    """Return the same batch norm for fewer channels.

    >>> norm = nn.BatchNorm1d(3)
    >>> _ = norm.weight.data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    >>> narrowed(norm, Cut(*[np.array([True, False, True])] * 3)).weight.tolist()
    [1.0, 3.0]
    """
    assert module.running_mean is not None
    rows = torch.from_numpy(cut.outputs).to(module.running_mean.device)
    smaller = type(module)(int(cut.outputs.sum()), module.eps, module.momentum, module.affine, device="meta")
    for name, value in module.named_parameters():
        setattr(smaller, name, nn.Parameter(value.detach()[rows], value.requires_grad))
    for name, value in module.named_buffers():
        setattr(smaller, name, value[rows] if value.ndim else value.clone())
    return smaller.eval()


def _kept(operation: Operation, module: BatchNorm, cut: Cut) -> dict[str, np.ndarray]:
    masks = {name: operation.kept.get(value) for name, value in module.named_parameters()}
    return {name: mask[cut.outputs] for name, mask in masks.items() if mask is not None}


def _numbers(value: torch.Tensor) -> np.ndarray:
    return value.detach().to("cpu", torch.float64).numpy()
