"""Activations and other element-wise operations; dropout, which does nothing in eval mode."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from pruning.compaction.channels import Carry, Change, Channels, Cut, Link
from pruning.compaction.rules import Operation, rule


@rule(
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.RReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.LogSigmoid,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Tanhshrink,
    nn.Softplus,
    nn.Softsign,
    nn.Threshold,
    F.relu,
    F.relu6,
    F.leaky_relu,
    F.elu,
    F.selu,
    F.celu,
    F.gelu,
    F.silu,
    F.mish,
    F.sigmoid,
    F.tanh,
    F.logsigmoid,
    F.hardtanh,
    F.hardsigmoid,
    F.hardswish,
    F.hardshrink,
    F.softshrink,
    F.tanhshrink,
    F.softplus,
    F.softsign,
    F.threshold,
    torch.relu,
    torch.relu_,
    torch.sigmoid,
    torch.tanh,
    torch.sin,
    torch.cos,
    torch.abs,
    torch.neg,
    torch.clamp,
    "relu",
    "relu_",
    "sigmoid",
    "sigmoid_",
    "tanh",
    "tanh_",
    "sin",
    "cos",
    "abs",
    "neg",
    "clamp",
    "clamp_",
    "contiguous",
    "clone",
    "detach",
)
def pointwise(operation: Operation) -> Carry | None:
    """Map every number by itself: constants are mapped, channels stay."""
    if operation.lone is None:
        return None
    source, channels = operation.lone
    constant = operation.at({source: channels.constant}, channels.width)
    return Carry(Channels(channels.axis, constant), (Link.straight(source, channels.axis, channels.width),))


@rule(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
def dropout_module(operation: Operation) -> Carry | None:
    """Do nothing, as dropout does in eval mode."""
    return _same(operation)


@rule(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
def dropout_function(operation: Operation) -> Carry | None:
    """Do nothing where `training` is False; dense where it is not."""
    default = operation.node.target is not F.alpha_dropout and operation.node.target is not F.feature_alpha_dropout
    return _same(operation) if operation.argument(2, "training", default) is False else None


@rule(nn.PReLU)
def prelu(operation: Operation) -> Carry | None:
    """Slopes for negative numbers, one for all channels or one for each."""
    if operation.lone is None:
        return None
    source, channels = operation.lone
    module = operation.module
    assert isinstance(module, nn.PReLU)
    if module.num_parameters > 1 and (channels.axis != 1 or module.num_parameters != channels.width):
        return None

    def narrow(cut: Cut) -> Change:
        if module.num_parameters == 1 or cut.outputs.all():
            return Change()
        rows = torch.from_numpy(cut.outputs).to(module.weight.device)
        smaller = nn.PReLU(int(cut.outputs.sum()), device="meta", dtype=module.weight.dtype)
        smaller.weight = nn.Parameter(module.weight.detach()[rows], module.weight.requires_grad)
        kept = operation.kept.get(module.weight)
        return Change(smaller.eval(), {} if kept is None else {"weight": kept[cut.outputs]})

    constant = operation.at({source: channels.constant}, channels.width)
    links = (Link.straight(source, channels.axis, channels.width),)
    return Carry(Channels(channels.axis, constant), links, narrow)


def _same(operation: Operation) -> Carry | None:
    if operation.lone is None:
        return None
    source, channels = operation.lone
    return Carry(channels, (Link.straight(source, channels.axis, channels.width),))
