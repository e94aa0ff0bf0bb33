"""How many weights each tensor keeps at the start, and random masks with these numbers."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, unknown
from pruning.ladder import rational, round_half_up
from pruning.scopes import SCOPES, PrunableTensors, Schedule, place
from pruning.scopes.filling import filled_levels
from pruning.starts.tensor import Tensor

# Sizes alone do not say which axes are taps, so that this is no scope of a search.
_ER = "er"


def kept_counts(tensors: Sequence[Tensor], density: float, scope: str = "erk") -> dict[str, int]:
    """Return how many weights each tensor keeps, by name; together exactly the density of all, rounded half up.

    Args:
        tensors: what the weights are divided among, whatever their present masks.
        density: more than 0, at most 1.
        scope: `uniform`, `er` (Mocanu et al. 2018, arXiv 1707.04780: density ∝ (inputs + outputs) /
            (inputs · outputs), the same at every tap), `erk`, or another scope that needs no scores.

    Raises:
        UnknownName: no such scope.
        BadValue: a density out of range, one that leaves a tensor without a weight, or a scope that leaves the numbers
            to scores.

    >>> from pruning.starts.tensor import Layout
    >>> kernel = Tensor("conv", np.ones((4, 2, 3, 3), bool), Layout((4, 2, 3, 3), (), (0,), (1,)))
    >>> matrix = Tensor("fc", np.ones((10, 8), bool), Layout((10, 8), (), (0,), (1,)))
    >>> [kept_counts([kernel, matrix], 0.25, scope) for scope in ("uniform", "er", "erk")]
    [{'conv': 18, 'fc': 20}, {'conv': 29, 'fc': 9}, {'conv': 15, 'fc': 23}]
    """
    if not 0 < density <= 1:
        raise BadValue(f"density must be more than 0 and at most 1, not {density:g}")
    shapes = {tensor.name: tensor.keep.shape for tensor in tensors}
    total = sum(math.prod(shape) for shape in shapes.values())
    if round_half_up(total * rational(density)) < len(shapes):
        raise BadValue(f"density {density:g} of {total:,} weights is less than one in each of {len(shapes)} tensors")
    network = PrunableTensors(shapes, {tensor.name: tensor.keep.size for tensor in tensors})
    schedule = Schedule(densities=(density,))
    if scope == _ER:
        level = filled_levels(schedule, network, {tensor.name: _er_share(tensor) for tensor in tensors})[1]
    elif scope in SCOPES:
        level = place(scope, schedule, network)[1]
    else:
        raise unknown("scope", scope, [_ER, *SCOPES.names()])
    if isinstance(level, int):
        raise BadValue(f"scope {scope!r} leaves the numbers to scores, and a start has none: use erk, er or uniform")
    return level


def thinned(tensors: Sequence[Tensor], density: float, scope: str = "erk", *, seed: int) -> tuple[Tensor, ...]:
    """Return tensors under random masks with the numbers of `kept_counts`.

    The parts of a tensor (gates, groups, projections) get the same number each, or one more.

    Args:
        tensors: whatever their present masks.
        density: of all of them together.
        scope: as for `kept_counts`.
        seed: of the masks alone.

    Raises:
        UnknownName, BadValue: as `kept_counts`.
    """
    counts = kept_counts(tensors, density, scope)
    return tuple(replace(tensor, keep=_random_keep(tensor, counts[tensor.name], seed)) for tensor in tensors)


def _er_share(tensor: Tensor) -> int:
    return max(1, sum((weight.inputs + weight.outputs) * weight.taps for weight in tensor.weights()))


def _random_keep(tensor: Tensor, count: int, seed: int) -> NDArray[np.bool_]:
    # The last word makes it another stream than the one that weights of the same seed are drawn from.
    rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode()), 0, 1])
    cut = tensor.layout.cut(tensor.keep)
    least, over = divmod(count, len(cut))
    more = set(rng.permutation(len(cut))[:over].tolist())
    parts: list[NDArray[np.bool_]] = []
    for number, part in enumerate(cut):
        keep = np.zeros(part.size, bool)
        keep[rng.permutation(part.size)[: least + (number in more)]] = True
        parts.append(keep.reshape(part.shape))
    return cast(NDArray[np.bool_], tensor.joined(parts))
