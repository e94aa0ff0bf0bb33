"""Which part of a network masks cover, as shares of the weights and of the work, in one line."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lottery.networks.sources.source import ModelSource
from lottery.settings.config import SearchConfig
from lottery.trainers import Ask
from pruning.masks.names import match_patterns
from pruning.torch_modules import NEVER_PRUNABLE, is_matrix, is_trainable, own_tensors
from pruning.uses.uses import COMPUTED, NOT_FOLLOWED, SCALES, Uses

_MOST = 6
_NAMED = 3
_VECTORS = "biases and other vectors"


class NotPrunable(UserWarning):
    """Weights that stay dense because no mask covers them, and that nobody asked to leave out."""


@dataclass(frozen=True)
class Coverage:
    """Which part of a network a search's masks cover.

    Attributes:
        parameters: share of all numbers that the network learns or keeps as parameters.
        multiply_adds: share of a forward pass's multiplications (of its products); None where it is not known.
        left: share of the parameters of what stays dense, by name, largest first; vectors in one entry.
        unseen: why it is not known how the network uses its tensors; empty where it is.
    """

    parameters: float
    multiply_adds: float | None
    left: Mapping[str, float]
    unseen: str = ""

    def __str__(self) -> str:
        """Return the one line."""
        work = "" if self.multiply_adds is None else f", {_percent(self.multiply_adds)} of the multiply-adds"
        named = [f"{name} ({_percent(share)})" for name, share in list(self.left.items())[:_NAMED]]
        more = f" and {len(self.left) - _NAMED} more" if len(self.left) > _NAMED else ""
        left = f"; left dense: {', '.join(named)}{more}" if named else ""
        unseen = f"; {NOT_FOLLOWED} ({self.unseen}): the kinds of its layers decide" if self.unseen else ""
        return f"masks cover {_percent(self.parameters)} of the parameters{work}{left}{unseen}"

    def as_json(self) -> dict[str, Any]:
        """Return the coverage as the records of a run hold it."""
        return asdict(self)


def coverage_of(sizes: Mapping[str, int], vectors: Collection[str], covered: Collection[str], uses: Uses) -> Coverage:
    """Return which part of a network masks of these tensors cover.

    Args:
        sizes: how many numbers every parameter of the network holds.
        vectors: those that are no matrices: biases, scales.
        covered: those that a mask covers.
        uses: how the network uses its tensors.

    >>> work = Uses(work={"w": 9.0}, total_work=10.0)
    >>> print(coverage_of({"w": 6, "table": 3, "bias": 1}, ["bias"], ["w"], work))
    masks cover 60 % of the parameters, 90 % of the multiply-adds; left dense: table (30 %), biases and other vectors \
(10 %)
    """
    total = max(1, sum(sizes.values()))
    names = sorted((name for name in sizes if name not in covered and name not in vectors), key=lambda n: -sizes[n])
    left = {name: sizes[name] / total for name in names}
    small = sum(sizes[name] for name in vectors if name not in covered)
    left |= {_VECTORS: small / total} if small else {}
    done = sum(uses.work.get(name, 0.0) for name in covered)
    return Coverage(
        parameters=sum(sizes[name] for name in covered) / total,
        multiply_adds=done / uses.total_work if uses.total_work and not uses.reason else None,
        left=left,
        unseen=uses.reason,
    )


def coverage(ask: Ask, covered: Collection[str], uses: Uses) -> Coverage:
    """Return which part of a search's network masks of these tensors cover."""
    if isinstance(ask.source, ModelSource):
        parameters = dict(ask.source.build(ask.seed).named_parameters())
        sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        return coverage_of(sizes, [n for n, p in parameters.items() if not is_matrix(p)], covered, uses)
    arrays = {name: a for name, a in ask.source.initial_state(ask.seed).items() if a.dtype.kind in "fc" or a.ndim > 1}
    vectors = [name for name, array in arrays.items() if sum(size > 1 for size in array.shape) < 2]
    return coverage_of({name: array.size for name, array in arrays.items()}, vectors, covered, uses)


def warn_not_covered(ask: Ask, config: SearchConfig, covered: Collection[str], uses: Uses) -> None:
    """Warn of weights that stay dense although the user did not ask for it.

    Those are trainable tensors of two or more axes that look like weights and are none that a mask could cover: a
    weight is computed from them that is not 0 where they are (orthogonal parametrizations), or they multiply
    activations element by element. Where the network could not be followed, all that belong to no kind of layer that
    is known. What `skip` names, and whatever `prunable` leaves out, was asked for.

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
        sizes, left_out = trainable_sizes(model), uncovered(model, covered, uses)
    else:
        state = ask.source.initial_state(ask.seed)
        sizes = {name: array.size for name, array in state.items() if array.dtype.kind == "f"}
        left_out = [
            name for name in sizes if name in uses.factors and name not in covered and "embed" not in name.lower()
        ]
    skipped = set(match_patterns(config.skip, sizes, "skip")) if config.skip else set()
    left_out = [name for name in left_out if name not in skipped]
    if left_out:
        warnings.warn(message(left_out, sizes, uses), NotPrunable, stacklevel=3)


def uncovered(model: nn.Module, covered: Collection[str], uses: Uses) -> list[str]:
    """Return the trainable tensors that look like weights, in the model's order, and are not covered.

    >>> from torch.nn.utils.parametrizations import weight_norm
    >>> network = nn.Sequential(weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    >>> uncovered(network, ["1.weight"], Uses(reason="it was not looked at"))
    ['0.parametrizations.weight.original1']
    """
    outside = {id(parameter) for _, parameter in own_tensors(model, NEVER_PRUNABLE)}
    return [
        name
        for name, parameter in model.named_parameters()
        if name not in covered
        and is_trainable(parameter)
        and id(parameter) not in outside
        and "embed" not in name.rpartition(".")[2].lower()
        and is_matrix(parameter)
        and (uses.reason or uses.apart.get(name, "").startswith((COMPUTED, SCALES)))
    ]


def trainable_sizes(model: nn.Module) -> dict[str, int]:
    """Return how many weights every trainable tensor holds."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def message(left_out: Collection[str], sizes: Mapping[str, int], uses: Uses) -> str:
    """Return the one line.

    >>> message(["1.v"], {"1.v": 99, "2.weight": 1}, Uses())
    "99 % of the trainable weights are not prunable and stay dense: '1.v' (99); name them in `prunable` (if a 0 there \
is a 0 in the weight), or in `skip`"
    """
    share = math.fsum(sizes[name] for name in left_out) / max(1, sum(sizes.values()))
    why = {name: f": {uses.apart[name]}" if name in uses.apart else "" for name in left_out}
    names = [f"{name!r} ({sizes[name]:,}{why[name]})" for name in list(left_out)[:_MOST]]
    more = f" and {len(left_out) - _MOST} more" if len(left_out) > _MOST else ""
    return (
        f"{100 * share:.3g} % of the trainable weights are not prunable and stay dense: {', '.join(names)}{more}; name "
        "them in `prunable` (if a 0 there is a 0 in the weight), or in `skip`"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
