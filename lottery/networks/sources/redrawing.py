"""Whether weights that should be drawn anew are: by an initializer, for each replicate, for a control."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from lottery.networks.sources.source import ModelSource, Source
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import state_of
from pruning.copies.copying import copy_module
from pruning.errors import BadValue
from pruning.jobs import Params


class SameWeights(UserWarning):
    """Weights that should differ are the same; the message says which."""


class LeftToTheModel(UserWarning):
    """An initializer left a prunable tensor as the model made it; the message says which and why."""


def check_initializer(source: Source, init: str, seed: int, names: Iterable[str]) -> None:
    """Raise `BadValue` for the first of these tensors that the initializer leaves as the model made it.

    Args:
        source: where networks come from.
        init: the initializer's name.
        seed: the seed of the network that is looked at.
        names: the names of the prunable tensors.
    """
    if not isinstance(source, ModelSource) or source.start is not None or not source.init.first:
        return
    made = source.without_init().build(seed)
    states = [state_of(made)]
    for other in (0, 1):
        network = copy_module(made)
        with seeded_everywhere(other):
            source.init.redraw(network, other, None)
        states.append(state_of(network))
    for name in names:
        if all(np.array_equal(states[0][name], state[name]) for state in states[1:]):
            raise BadValue(
                f"init {init!r} does not redraw the prunable tensor {name!r}: it is no weight of a linear, "
                "convolution, bilinear, recurrent or attention layer; name it in `skip`, or leave init at 'model'"
            )


def warn_left(left: Mapping[str, str], names: Iterable[str], init: str) -> None:
    """Say which of these tensors an initializer left as the model made them, and why.

    Args:
        left: why, by name.
        names: the names of the prunable tensors.
        init: the initializer's name.

    Raises:
        BadValue: it left all of them.

    >>> warn_left({"w": "'w' is no convolution"}, ["w"], "delta")
    Traceback (most recent call last):
    pruning.errors.BadValue: init 'delta' draws none of the prunable tensors: 'w' is no convolution
    """
    names = list(names)
    stay = [name for name in names if name in left]
    if not stay:
        return
    if len(stay) == len(names):
        raise BadValue(f"init {init!r} draws none of the prunable tensors: {left[stay[0]]}")
    warnings.warn(
        f"init {init!r} leaves {_listed(stay)} of {len(names)} prunable tensors as the model made it: {left[stay[0]]}",
        LeftToTheModel,
        stacklevel=2,
    )


def warn_same_replicates(initial: Mapping[int, Params], names: Iterable[str]) -> None:
    """Warn where two replicates begin at the same weights: the model's maker does not use its seed.

    >>> with warnings.catch_warnings(record=True, action="always") as said:
    ...     warn_same_replicates({0: {"w": np.arange(2)}, 1: {"w": np.ones(2)}, 2: {"w": np.arange(2)}}, ["w"])
    >>> [str(one.message).partition(" in ")[0] for one in said]
    ['replicates 0 and 2 begin at the same weights']
    """
    names, seeds = list(names), list(initial)
    for other in seeds[1:]:
        same = unchanged(initial[seeds[0]], initial[other], names)
        if same:
            warnings.warn(
                f"replicates {seeds[0]} and {other} begin at the same weights in {_listed(same)} of {len(names)} "
                "prunable tensors: the model is made the same for both seeds",
                SameWeights,
                stacklevel=2,
            )
            return


def warn_not_redrawn(own: Params, fresh: Params, names: Iterable[str]) -> None:
    """Warn where another initialization has the same weights as the first in a tensor."""
    same = unchanged(own, fresh, list(names))
    if same:
        warnings.warn(
            f"drawn afresh, {_listed(same)} of the prunable tensors stays as it was: this control does not change it",
            SameWeights,
            stacklevel=2,
        )


def unchanged(first: Params, second: Params, names: Iterable[str]) -> list[str]:
    """Return the tensors with equal values in both, but for those of one value: a zero start is drawn so.

    >>> arrays = {"drawn": np.array([1.0, 2.0]), "zero": np.zeros(2)}
    >>> unchanged(arrays, arrays, arrays)
    ['drawn']
    """
    return [name for name in names if np.array_equal(first[name], second[name]) and not _constant(first[name])]


def _constant(values: NDArray[np.generic]) -> bool:
    return values.size == 0 or bool((values == values.flat[0]).all())


def _listed(names: list[str]) -> str:
    return f"{names[0]!r}" if len(names) == 1 else f"{names[0]!r} and {len(names) - 1} others"
