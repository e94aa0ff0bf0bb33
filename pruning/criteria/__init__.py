"""Criteria: what makes a weight worth keeping. One small file each, found by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pruning.errors import UnknownName
from pruning.jobs import Job, Trained
from pruning.registry import Registry, import_by_path, summary_of

Scores = dict[str, NDArray[np.floating]]
ScoreFunction = Callable[[Trained, Job], Scores]


@dataclass(frozen=True)
class Criterion:
    """A pure function from trained weights to scores, and what it needs to see.

    Attributes:
        name: what people type.
        score: `score(trained, job)` returns one real array for each tensor of `job.mask`; higher is kept.
        needs: what the trainer must provide beside the trained weights (`std`, `gradients`).
    """

    name: str
    score: ScoreFunction
    needs: frozenset[str]


CRITERIA: Registry[Criterion] = Registry("criterion", "pruning.criteria")


def criterion(name: str, *, source: str, needs: Iterable[str] = ()) -> Callable[[ScoreFunction], ScoreFunction]:
    """Register a scoring function; its docstring's first line is its summary.

    Args:
        name: what people type.
        source: the paper (or page) that defines it.
        needs: what the trainer must provide beside the trained weights.
    """

    def register(score: ScoreFunction) -> ScoreFunction:
        CRITERIA.add(name, Criterion(name, score, frozenset(needs)), summary_of(score), source)
        return score

    return register


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
