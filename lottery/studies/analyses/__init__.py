"""Analyses of a finished search, by name: plain arrays, a few lines of text, and a figure. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Shown
from lottery.results.levels import Level, Search
from lottery.runs.directory import RunDirectory
from lottery.state.machine.callers_settings import own_settings
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lottery.networks.objectives.metric import GivenMetric
    from lottery.networks.objectives.objective import GivenLoss
    from lottery.search.frame.frame import Frame
    from lottery.studies.view import TorchView
    from pruning.calls.calling import Forward

IN_JAX = (
    "early-stop-speedup, layer-density, mask-overlap and weight-distributions take any model; for others look at "
    "ticket.trained(model) by yourself"
)
"""What can be done with a run of a JAX model, where an analysis needs PyTorch."""


@dataclass(frozen=True)
class Study:
    """A search on disk, with everything that an analysis may need.

    Attributes:
        search: the levels of the run.
        run: the run directory.
        reopen: makes its frame again, when an analysis needs it.
        asked: the name of the analysis and a verb, for messages.
    """

    search: Search
    run: RunDirectory
    reopen: Callable[[], Frame]
    asked: str = "this analysis looks at"

    @cached_property
    def view(self) -> TorchView:
        """Networks and data in PyTorch; raises `BadValue` for an environment or a JAX model."""
        from lottery.studies.view import torch_view

        return torch_view(self.reopen(), self.asked, IN_JAX)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that at least one replicate finished, level 0 first."""
        return tuple(level for level in self.search.levels if level.alive)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The replicates that were alive at each of these levels."""
        return tuple(replicate.seed for replicate in self.levels[-1].alive)

    @property
    def chosen(self) -> int:
        """The winning level, or the last where there is none."""
        return self.search.winner.level if self.search.winner else self.levels[-1].level

    @property
    def milestones(self) -> tuple[int, ...]:
        """Level 1, the level half-way to the chosen one, and the chosen one; raises `BadValue` where none is pruned."""
        if self.chosen == 0:
            raise BadValue(f"{self.run.path}: no pruned level is finished yet")
        return tuple(sorted({1, (1 + self.chosen) // 2, self.chosen}))

    def mask(self, seed: int, level: int) -> Mask:
        """Return the mask of one replicate's level."""
        return self.run.read_mask(seed, level)

    def rewound(self, seed: int, level: int) -> Params:
        """Return its weights at the rewind point (not masked)."""
        return self.run.read_rewound(seed, level)

    def trained(self, seed: int, level: int) -> Params:
        """Return its trained weights: those whose metrics are reported."""
        return self.run.read_delivered(seed, level)


@dataclass(frozen=True)
class Findings:
    """What an analysis found.

    Attributes:
        arrays: plain arrays by name; the first axis is what the docstring of the analysis says.
        shown: a small table and a few lines, for people; `text` is the same as plain text.
        draw: draws it into an empty figure.
        facts: numbers and words that are no arrays: n, a rule, a warning.
    """

    arrays: Mapping[str, NDArray[Any]]
    shown: Shown
    draw: Callable[[Figure], None]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What is shown, as plain text."""
        return str(self.shown)

    def as_json(self) -> dict[str, Any]:
        """Return arrays and facts as plain JSON."""
        return {**{name: np.asarray(value).tolist() for name, value in self.arrays.items()}, **self.facts}


Analyze = Callable[[Study], Findings]

ANALYSES: Registry[Analyze] = Registry("analysis", "lottery.studies.analyses", listed="analyses")


def analysis(name: str, *, source: str) -> Callable[[Analyze], Analyze]:
    """Register an analysis of one search; its docstring's first line is its summary."""
    return ANALYSES.registering(name, source)


@own_settings()
def study(
    path: str | Path,
    model: Any = None,
    data: Any = None,
    *,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    functions: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Study:
    """Return a finished (or cut off) search, ready to be analysed; its model and data are made when first asked for.

    Args:
        path: the run directory.
        model: the model of the search; may be left out where it was a name.
        data: the data of the search; may be left out where they were a name.
        loss: the search's loss, where it was the caller's own.
        metric: the search's metric, where it was the caller's own.
        forward: the search's `forward`, where it was the caller's own.
        functions: settings of the search that were functions, by name: `{"optimizer": make}`.
        trust: run a model that only the run's records name as `package.module:callable`; without it an analysis that
            needs that model raises `Untrusted`.

    Raises:
        FileFormatError: not a run directory, or one without a finished level.
    """
    from lottery.runs.given import Given
    from lottery.runs.reading import read_search
    from lottery.studies.reopening import reopen

    path = Path(path)

    given = Given(model, data, loss, metric, forward)
    again = partial(reopen, path, given, functions=functions, trust=trust)
    return Study(read_search(path), RunDirectory(path), lambda: again()[1])


@own_settings()
def analyze(
    path: str | Path,
    name: str,
    model: Any = None,
    data: Any = None,
    *,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    functions: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Findings:
    """Return what one analysis finds in a run (see `study`); raises `UnknownName` for one that does not exist."""
    chosen = ANALYSES[name].value
    with users_code(f"the analysis {name!r}"):
        given: dict[str, Any] = {"loss": loss, "metric": metric, "forward": forward, "functions": functions}
        looked_at = study(path, model, data, trust=trust, **given)
        return chosen(replace(looked_at, asked=f"analysis {name!r} looks at"))
