"""Weights that no mask covers though they look like weights: named in one line, with their share, every time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping

from torch import nn

from lottery.config import SearchConfig
from lottery.models.source import ModelSource
from lottery.trainers import Ask
from pruning.names import match_patterns
from pruning.torch_modules import NEVER_PRUNABLE, own_tensors
from pruning.uses import Uses

_MOST = 6


class NotPrunable(UserWarning):
    """Weights that stay dense because no mask covers them, and that nobody asked to leave out."""


def warn_not_covered(ask: Ask, config: SearchConfig, covered: Collection[str], uses: Uses) -> None:
    """Warn of weights that stay dense without anybody having asked for it.

    Those are trainable tensors of two or more axes that belong to no normalization or embedding: of layers whose
    weight is computed (weight norm, spectral norm), of kinds of layers that are not known, or a module's own. What
    `skip` names, and whatever `prunable` leaves out, was asked for.

    Args:
        ask: the model.
        config: the search.
        covered: names of the tensors that are prunable by the default rule.
        uses: how the network uses them.
    """
    if config.prunable:
        return
    if isinstance(ask.source, ModelSource):
        model = ask.source.build(ask.seed)
        sizes, left_out = trainable_sizes(model), uncovered(model, covered)
    else:
        state = ask.source.initial_state(ask.seed)
        sizes = {name: array.size for name, array in state.items() if array.dtype.kind == "f"}
        left_out = [
            name for name in sizes if name in uses.factors and name not in covered and "embed" not in name.lower()
        ]
    skipped = set(match_patterns(config.skip, sizes, "skip")) if config.skip else set()
    left_out = [name for name in left_out if name not in skipped]
    if left_out:
        warnings.warn(message(left_out, sizes), NotPrunable, stacklevel=3)


def uncovered(model: nn.Module, covered: Collection[str]) -> list[str]:
    """Return the trainable tensors that look like weights, in the model's order, and are not covered.

    >>> from torch.nn.utils.parametrizations import weight_norm
    >>> uncovered(nn.Sequential(weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2)), ["1.weight"])
    ['0.parametrizations.weight.original1']
    """
    outside = {id(parameter) for _, parameter in own_tensors(model, NEVER_PRUNABLE)}
    return [
        name
        for name, parameter in model.named_parameters()
        if name not in covered
        and name in trainable_sizes(model)
        and id(parameter) not in outside
        and "embed" not in name.rpartition(".")[2].lower()
        and sum(size > 1 for size in parameter.shape) > 1
    ]


def trainable_sizes(model: nn.Module) -> dict[str, int]:
    """Return how many weights every trainable tensor holds."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def message(left_out: Collection[str], sizes: Mapping[str, int]) -> str:
    """Return the one line.

    >>> message(["1.v"], {"1.v": 99, "2.weight": 1})
    "99 % of the trainable weights are not prunable and stay dense: '1.v' (99); name them in `prunable` (if a 0 there \
is a 0 in the weight), or in `skip`"
    """
    share = math.fsum(sizes[name] for name in left_out) / max(1, sum(sizes.values()))
    names = [f"{name!r} ({sizes[name]:,})" for name in list(left_out)[:_MOST]]
    more = f" and {len(left_out) - _MOST} more" if len(left_out) > _MOST else ""
    return (
        f"{100 * share:.3g} % of the trainable weights are not prunable and stay dense: {', '.join(names)}{more}; name "
        "them in `prunable` (if a 0 there is a 0 in the weight), or in `skip`"
    )
