"""A grid over two seeds, all else fixed: which of them a result depends on, and what the best of n would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.results.levels import Search
from lottery.results.reporting import percent, table, units
from lottery.results.statistics import expected_best, reported
from lottery.runs.given import Given
from lottery.search.levels.progress import Display
from lottery.search.preparing.asking import request_of
from lottery.search.running import run_search
from lottery.settings.keywords import Settings
from lottery.state.counts import check_count
from lottery.state.machine.bars import bars_wanted
from lottery.studies.seeds.splitting import Split, split_variance
from pruning.calls.calling import Forward
from pruning.errors import BadValue, shown, unknown

SEEDS = ("weights", "mask", "data")


@dataclass(frozen=True, eq=False)
class SeedGrid:
    """Results of one search under every pair of two seeds.

    Attributes:
        over: what the two seeds draw: that of the rows, that of the columns.
        seeds: the seeds, the same for rows and columns.
        searches: a row of searches for each seed of the rows.
        level: the level that is looked at.
    """

    over: tuple[str, str]
    seeds: tuple[int, ...]
    searches: tuple[tuple[Search, ...], ...]
    level: int

    @property
    def metrics(self) -> NDArray[np.float64]:
        """The test metrics (validation metrics without a test part) [count, count]; NaN where training diverged."""
        return np.array([[_metric(search, self.level) for search in row] for row in self.searches])

    @property
    def split(self) -> Split | None:
        """The shares of both seeds and of the rest in the variance; None without any spread, or where one diverged."""
        metrics = self.metrics
        return split_variance(metrics) if np.isfinite(metrics).all() else None

    def best_of(self, n: int) -> float:
        """Return the expected best metric of n trainings of this grid (see `expected_best`); what diverged is left out.

        Raises:
            BadValue: n is no number of trainings, or everything diverged.
        """
        metrics = self.metrics[np.isfinite(self.metrics)]
        sign = 1 if self.searches[0][0].higher_is_better else -1
        return sign * expected_best(sign * metrics, n)

    def at(self, level: int) -> SeedGrid:
        """Return the same grid, looked at at another level; raises `BadValue` where it has no such level."""
        last = max(len(search.levels) for row in self.searches for search in row) - 1
        if not 0 <= level <= last:
            raise BadValue(f"level {level}: the searches of this grid have levels 0 to {last}")
        return SeedGrid(self.over, self.seeds, self.searches, level)

    def __str__(self) -> str:
        search, metrics, count = self.searches[0][0], self.metrics, len(self.seeds)
        scale, _ = units(search.is_fraction)
        tested = search.levels[0].test is not None
        rows = [
            [f"{self.over[0]} {seed}", *(f"{scale * value:.2f}" for value in [*values, np.mean(values)])]
            for seed, values in zip(self.seeds, metrics, strict=True)
        ]
        means = [f"{scale * value:.2f}" for value in [*metrics.mean(0), metrics.mean()]]
        header = ["", *(f"{self.over[1]} {seed}" for seed in self.seeds), "mean"]
        density = next(lv.density for row in self.searches for s in row for lv in s.levels if lv.level == self.level)
        measured = f"{'test' if tested else 'validation'} {search.metric}{' %' if search.is_fraction else ''}"
        head = f"{measured}, level {self.level} (density {percent(density)})"
        shown = str(table(header, [*rows, ["mean", *means]], left=[0]))
        return "\n".join([head, shown, self._split(), self._best(count**2)])

    def _split(self) -> str:
        if not np.isfinite(self.metrics).all():
            return "Variance: not split, as a training diverged."
        if self.split is None:
            return "Variance: none."
        first, second = self.over
        chance = (len(self.seeds) - 1) / (len(self.seeds) ** 2 - 1)
        return (
            f"Variance: {first} {self.split.rows:.0%}, {second} {self.split.columns:.0%}, "
            f"the rest {self.split.rest:.0%} (noise alone would give either seed {chance:.0%})."
        )

    def _best(self, most: int) -> str:
        if not np.isfinite(self.metrics).any():
            return "Expected best: nothing was trained to the end."
        scale, _ = units(self.searches[0][0].is_fraction)
        shown = [n for n in (1, 2, 5, 10, 20, 50, 100) if n <= most]
        return "Expected best of n: " + ", ".join(f"{n}: {scale * self.best_of(n):.2f}" for n in shown) + "."


def seed_grid(
    model: Any = None,
    data: Any = None,
    *,
    over: Sequence[str] = ("weights", "data"),
    count: int = 5,
    level: int | None = None,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    recipe: str | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    quiet: bool = False,
    **settings: Unpack[Settings],
) -> SeedGrid:
    """Search under every pair of two seeds, the third fixed, and say which of the two the result depends on.

    Each of the `count`² searches is a run of its own in `out`: what is there is read and not trained again.

    Args:
        model: as for `find_ticket`; a callable or a name where `weights` is one of the two.
        data: as for `find_ticket`.
        over: the two seeds: of `weights`, `mask`, `data` (the settings `seed_weights`, `seed_mask`, `seed_data`).
        count: how many of each, counted up from the setting `seed`; 2 or more.
        level: the level that is looked at; by default the last. `levels=0` trains the dense network alone.
        loss: as for `find_ticket`.
        metric: as for `find_ticket`.
        forward: as for `find_ticket`.
        recipe: as for `find_ticket`.
        config: as for `find_ticket`.
        out: the folder in which runs are kept.
        quiet: no progress bars.
        **settings: of the search and of its trainer.

    Raises:
        UsageError: a wrong name, value or shape; nothing was trained.
        Diverged: a dense network that did not train to finite weights.

    Source: Dodge et al. 2020, sections 3 and 4 (arXiv 2002.06305).

    >>> grid = seed_grid("mlp", "digits", count=2, levels=0, steps=20, out=tmp, quiet=True)
    >>> grid.metrics.shape
    (2, 2)
    """
    check_count("count", count, 2)
    names = _names(over)
    request = request_of(Given(model, data, loss, metric, forward), settings, recipe, config)
    base = dict(request.settings)
    for name in ("replicates", *names):
        if base.get(name) not in (None, *((1,) if name == "replicates" else ())):
            raise BadValue(f"a grid says {name} by itself: leave it out")
    seeds = tuple(base.get("seed", 0) + number for number in range(count))
    display = Display(bars_wanted(quiet), None, lambda _: None)

    def search(first: int, second: int) -> Search:
        own = {**base, names[0]: first, names[1]: second}
        return run_search(replace(request, settings=own, out=Path(out)), display)

    searches = tuple(tuple(search(first, second) for second in seeds) for first in seeds)
    last = max(len(one.levels) for row in searches for one in row) - 1
    grid = SeedGrid((over[0], over[1]), seeds, searches, last)
    return grid if level is None else grid.at(level)


def _names(over: Sequence[str]) -> tuple[str, str]:
    """Return the settings of the two seeds."""
    if isinstance(over, str) or len(over) != 2 or over[0] == over[1]:
        raise BadValue(f"over names two of {', '.join(SEEDS)}, not {shown(over)}")
    for name in over:
        if name not in SEEDS:
            raise unknown("seed", name, SEEDS)
    return f"seed_{over[0]}", f"seed_{over[1]}"


def _metric(search: Search, level: int) -> float:
    if level >= len(search.levels) or not search.levels[level].alive:
        return float("nan")
    return reported(search.levels[level].alive[0])
