"""Partial training: which parameters training changes, by name patterns or as one of the named sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pruning.errors import BadValue, UnknownName, nearest
from pruning.masks.names import match_patterns
from pruning.torch_modules import prunable

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _norm(model: nn.Module) -> list[str]:
    """Scales and shifts of normalization layers."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _NORMS)
        for name, _ in module.named_parameters(recurse=False)
    ]


def _biases(model: nn.Module) -> list[str]:
    """Every parameter that its layer calls a bias, shifts of normalization layers among them."""
    return [name for name, _ in model.named_parameters() if "bias" in name.rpartition(".")[2]]


def _all_but_first(model: nn.Module) -> list[str]:
    """Everything but the first layer that has a prunable tensor."""
    first = next(iter(prunable(model))).rpartition(".")[0]
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] != first]


NAMED: dict[str, Callable[[nn.Module], list[str]]] = {
    "norm": _norm,
    "biases": _biases,
    "all-but-first": _all_but_first,
}


def trainable_names(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """Return the names of the parameters that training changes, in the model's order.

    Args:
        model: any module; parameters that do not require gradients are never trained.
        wanted: shell-style patterns of parameter names, or named sets: `norm` (scales and shifts of normalization
            layers, all that Frankle et al. 2021, arXiv 2003.00152, train), `biases`, `all-but-first`. Nothing means
            everything.

    Raises:
        UnknownName: a pattern that matches nothing.
        BadValue: a named set that is empty in this model.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    >>> trainable_names(model, ["norm", "2.*"])
    ['1.weight', '1.bias', '2.weight', '2.bias']
    """
    known = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not wanted:
        return known
    chosen: set[str] = set()
    for text in wanted:
        found = set(NAMED[text](model) if text in NAMED else _matching(text, known)) & set(known)
        if not found:
            raise BadValue(f"train_only {text!r}: the model has no such parameter that can be trained")
        chosen |= found
    return [name for name in known if name in chosen]


def _matching(pattern: str, known: Sequence[str]) -> list[str]:
    try:
        return match_patterns([pattern], known, "train_only")
    except UnknownName as error:
        sets = nearest(pattern, NAMED) or list(NAMED)
        raise UnknownName(f"{error}; named sets: {', '.join(sets)}") from error


def freeze_others(model: nn.Module, wanted: Sequence[str]) -> list[nn.Parameter]:
    """Keep training from changing other parameters, in place, and return those that it would have changed.

    Buffers are no parameters: a batch norm's running statistics follow the data all the same.

    Raises:
        UnknownName: a pattern that matches nothing.
        BadValue: a named set that is empty in this model.

    >>> model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    >>> len(freeze_others(model, ["1.*"])), [name for name, p in model.named_parameters() if p.requires_grad]
    (2, ['1.weight', '1.bias'])
    """
    names = set(trainable_names(model, wanted))
    others = [p for name, p in model.named_parameters() if p.requires_grad and name not in names]
    for parameter in others:
        parameter.requires_grad_(False)
    return others
