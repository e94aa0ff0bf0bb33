"""Analyses of a finished search, by name: plain arrays, a few lines of text, and a figure. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results import Search
from lottery.run_directory import RunDirectory
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.registry import Registry, summary_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lottery.preparing import Prepared
    from lottery.torch_view import TorchView


@dataclass(frozen=True)
class Study:
    """A search on disk, and what an analysis may want of it.

    Attributes:
        search: its levels.
        run: where they lie.
        prepare: makes its model and data again, when an analysis needs them.
    """

    search: Search
    run: RunDirectory
    prepare: Callable[[], Prepared]

    @cached_property
    def view(self) -> TorchView:
        """Networks and data in PyTorch; raises `BadValue` for an environment or a JAX pair."""
        from lottery.torch_view import torch_view

        return torch_view(self.prepare())

    @property
    def seeds(self) -> tuple[int, ...]:
        """The replicates that were alive at every level that all of them reached."""
        return tuple(replicate.seed for replicate in self.search.levels[-1].alive)

    def mask(self, seed: int, level: int) -> Mask:
        """Return the mask of one replicate's level."""
        return self.run.read_mask(seed, level)

    def rewound(self, seed: int, level: int) -> Params:
        """Return its weights at the rewind point (not masked)."""
        return self.run.read_rewound(seed, level)

    def trained(self, seed: int, level: int) -> Params:
        """Return its trained weights."""
        return self.run.read_trained(seed, level).params


@dataclass(frozen=True)
class Findings:
    """What an analysis found.

    Attributes:
        arrays: plain arrays by name; the first axis is what the docstring of the analysis says.
        text: what people read: a small table or a few lines.
        draw: draws it into an empty figure.
        facts: numbers and words that are no arrays: n, a rule, a warning.
    """

    arrays: Mapping[str, NDArray[Any]]
    text: str
    draw: Callable[[Figure], None]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return arrays and facts as plain JSON."""
        return {**{name: np.asarray(value).tolist() for name, value in self.arrays.items()}, **self.facts}


Analyze = Callable[[Study], Findings]

ANALYSES: Registry[Analyze] = Registry("analysis", "lottery.analyses")


def analysis(name: str, *, source: str) -> Callable[[Analyze], Analyze]:
    """Register an analysis of one search; its docstring's first line is its summary."""

    def register(function: Analyze) -> Analyze:
        ANALYSES.add(name, function, summary_of(function), source)
        return function

    return register
