"""Criteria: what makes a weight worth keeping. One small file each, found by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, UnknownName
from pruning.jobs import Job, Trained
from pruning.registry import Registry, import_by_path, summary_of

Scores = dict[str, NDArray[np.floating]]
ScoreFunction = Callable[[Trained, Job], Scores]


@dataclass(frozen=True)
class Criterion:
    """A pure function from trained weights to scores, and what it needs to see.

    Attributes:
        name: the name that users type.
        score: `score(trained, job)` returns one real array for each tensor of `job.mask`; higher is kept.
        needs: the values needed beside the weights: `std` from the trainer, the rest from probes (`gradients`, …).
        at: which weights are scored unless a search says otherwise: `trained`, or `rewind` (pruning at initialization).
        rounds: in how many rounds of scoring and removing a level's mask is drawn unless a search says otherwise.
    """

    name: str
    score: ScoreFunction
    needs: frozenset[str]
    at: str = "trained"
    rounds: int = 1


CRITERIA: Registry[Criterion] = Registry("criterion", "pruning.criteria", listed="criteria")


def criterion(
    name: str, *, source: str, needs: Iterable[str] = (), at: str = "trained", rounds: int = 1
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Register a scoring function; its docstring's first line is its summary.

    Args:
        name: the name that users type.
        source: the paper (or page) that defines it.
        needs: the values that it needs beside the weights: `std`, or names of probes (`gradients`, …).
        at: which weights it scores by default, `trained` or `rewind`.
        rounds: in how many rounds of scoring and removing a mask is drawn by default.
    """

    def register(score: ScoreFunction) -> ScoreFunction:
        CRITERIA.add(name, Criterion(name, score, frozenset(needs), at, rounds), summary_of(score), source)
        return score

    return register


def seen(trained: Trained, need: str) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of a probe, by tensor name; raises `BadValue` where no probe ran.

    >>> seen(Trained({}, [], evidence={"gradients": {"w": np.ones(1)}}), "gradients")
    {'w': array([1.])}
    """
    if need not in trained.evidence:
        raise BadValue(f"the criterion needs {need!r}, and nobody looked; name it in its `needs`")
    return trained.evidence[need]


def get_criterion(name: str | ScoreFunction) -> Criterion:
    """Return the criterion called `name`, or the user's own: a function, or one at `package.module:function`.

    Raises:
        UnknownName: neither registered nor importable.

    >>> get_criterion("magnitude").needs
    frozenset()
    """
    if isinstance(name, str) and ":" not in name:
        return CRITERIA[name].value
    function = import_by_path(name, "criterion") if isinstance(name, str) else name
    for entry in CRITERIA:
        if entry.value.score is function:
            return entry.value
    if not callable(function):
        raise UnknownName(f"criterion {name!r} is not a function")
    shown = name if isinstance(name, str) else getattr(name, "__name__", type(name).__name__)
    return Criterion(shown, cast(ScoreFunction, function), frozenset())
