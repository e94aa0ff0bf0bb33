"""Optimizers by name, in their fused form where the device has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from lottery.trainers.gd.optimizers.without_compiler import PlainAdam, PlainAdamW, PlainSGD
from pruning.errors import BadValue, NothingToPrune


class OptimizerSettings(Protocol):
    """The settings that an optimizer reads."""

    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def momentum(self) -> float: ...  # noqa: D102
    @property
    def nesterov(self) -> bool: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def optimizer(self) -> Any: ...  # noqa: D102
    @property
    def optimizer_params(self) -> Mapping[str, Any]: ...  # noqa: D102


Params = Sequence[nn.Parameter] | Sequence[dict[str, Any]]
"""Parameters, or groups of them with learning rates of their own."""


def _sgd(params: Params, settings: OptimizerSettings, fused: bool) -> Optimizer:
    return PlainSGD(
        params,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=fused,
    )


def _adam(params: Params, settings: OptimizerSettings, fused: bool) -> Optimizer:
    return PlainAdam(params, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)


def _adamw(params: Params, settings: OptimizerSettings, fused: bool) -> Optimizer:
    return PlainAdamW(params, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)


OPTIMIZERS: dict[str, Callable[[Params, OptimizerSettings, bool], Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def sparse_embedding(model: nn.Module) -> str | None:
    """Return the name of the first embedding that is trained with sparse gradients, or None where there is none.

    >>> sparse_embedding(nn.Sequential(nn.Embedding(4, 2, sparse=True)))
    '0'
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse and module.weight.requires_grad:
            return name
    return None


def in_groups(named: Mapping[str, nn.Parameter], lr: float, factors: Mapping[str, float]) -> Params:
    """Return parameters in groups of one learning rate each; as they are where all have the same.

    >>> weights = {"w": nn.Parameter(torch.ones(1)), "b": nn.Parameter(torch.ones(1))}
    >>> [(len(group["params"]), group["lr"]) for group in in_groups(weights, 0.1, {"w": 0.5})]
    [(1, 0.05), (1, 0.1)]
    """
    if not factors:
        return list(named.values())
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        groups.setdefault(factors.get(name, 1.0), []).append(parameter)
    return [{"params": params, "lr": lr * factor} for factor, params in groups.items()]


def make_optimizer(
    model: nn.Module, settings: OptimizerSettings, factors: Mapping[str, float] | None = None
) -> Optimizer:
    """Return the optimizer of the trainable parameters of `model`.

    Args:
        model: the model to train.
        settings: which optimizer.
        factors: by what the learning rates of single parameters are multiplied, by name.

    Raises:
        NothingToPrune: every parameter is frozen, or there is none (a quantized model has none).
        BadValue: an embedding with sparse gradients, which only `sgd` without weight decay takes.
    """
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not params:
        raise NothingToPrune(
            "the model has no trainable parameter (none requires gradients): there is nothing to train; unfreeze some "
            "with requires_grad_(True)"
        )
    sparse = sparse_embedding(model)
    if sparse is not None and (settings.optimizer != "sgd" or settings.weight_decay):
        given = f"optimizer {settings.optimizer!r}" if settings.optimizer != "sgd" else "weight_decay"
        raise BadValue(
            f"embedding {sparse!r} makes sparse gradients (sparse=True), which {given} cannot take: use optimizer "
            "'sgd' without weight_decay, or make the embedding with sparse=False"
        )
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups = in_groups(named, settings.lr, factors or {})
    if sparse is not None:  # PyTorch's fused form is for dense gradients alone
        return OPTIMIZERS[settings.optimizer](groups, settings, False)
    fused = all(p.dtype in (torch.float32, torch.float64) and p.device.type in ("cpu", "cuda") for p in params)
    return OPTIMIZERS[settings.optimizer](groups, settings, fused)
