"""What a search found: replicates, levels, the winning ticket. Plain data, and the rules that read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from pruning.jobs import Evaluation


@dataclass(frozen=True)
class EarlyStop:
    """The evaluation with the smallest validation loss, found after training (Frankle & Carbin 2019, section 2)."""

    step: int
    validation: float
    test: float | None


@dataclass(frozen=True)
class Replicate:
    """One trained network of one level.

    Attributes:
        seed: which replicate.
        level: which level.
        validation: the deciding metric on validation data.
        test: the same on test data, or None without a test part.
        steps: optimizer steps (or generations) trained.
        final_validation: validation metric at the end of training.
        final_test: test metric at the end of training.
        early_stop: the measurement at the early-stop step.
        diverged: why the training failed, or None.
        kept: surviving weights.
        prunable: all prunable weights.
        layers: density of each tensor.
        path: its ticket directory.
        history: all evaluations.
    """

    seed: int
    level: int
    validation: float
    test: float | None
    steps: int
    final_validation: float
    final_test: float | None
    early_stop: EarlyStop | None
    diverged: str | None
    kept: int
    prunable: int
    layers: Mapping[str, float]
    path: Path
    history: Sequence[Evaluation]


@dataclass(frozen=True)
class Level:
    """All replicates of one level; statistics are over those that did not diverge."""

    level: int
    replicates: tuple[Replicate, ...]

    @property
    def alive(self) -> tuple[Replicate, ...]:
        """The replicates that did not diverge."""
        return tuple(replicate for replicate in self.replicates if replicate.diverged is None)

    @property
    def kept(self) -> int:
        """Surviving weights (the same in every replicate)."""
        return self.replicates[0].kept

    @property
    def prunable(self) -> int:
        """All prunable weights."""
        return self.replicates[0].prunable

    @property
    def density(self) -> float:
        """Fraction of the prunable weights that survive."""
        return self.kept / self.prunable

    @property
    def layers(self) -> dict[str, float]:
        """Mean density of each tensor."""
        names = self.replicates[0].layers
        return {name: float(np.mean([r.layers[name] for r in self.replicates])) for name in names}

    @property
    def validation(self) -> float:
        """Mean validation metric; NaN where every replicate diverged."""
        return _mean([replicate.validation for replicate in self.alive])

    @property
    def test(self) -> float | None:
        """Mean test metric, or None without a test part."""
        values = [replicate.test for replicate in self.alive if replicate.test is not None]
        return _mean(values) if values else None


@dataclass(frozen=True)
class Tolerance:
    """How much worse than dense still counts as matching, and why."""

    value: float
    rule: str


@dataclass(frozen=True)
class Winner:
    """The sparsest matching level, and the replicate of it that is best on validation data."""

    level: int
    seed: int


@dataclass(frozen=True)
class Search:
    """Everything a search found.

    Attributes:
        run: the run directory.
        levels: level 0 first.
        winner: the winning ticket, or None.
        reason: why there is none.
        stopped: why the search ended before its last level, or None.
        tolerance: what "matching" meant.
        metric: name of the metric.
        higher_is_better: its direction.
        is_fraction: whether it is a fraction of examples (an accuracy).
        test_examples: size of the test part, where known.
        seconds: time spent, all attempts together.
        device: where it trained.
        config: the resolved configuration.
    """

    run: Path
    levels: tuple[Level, ...]
    winner: Winner | None
    reason: str | None
    stopped: str | None
    tolerance: Tolerance
    metric: str
    higher_is_better: bool
    is_fraction: bool
    test_examples: int | None
    seconds: float
    device: str
    config: Mapping[str, Any]

    @property
    def winning_replicate(self) -> Replicate | None:
        """The replicate that the winning ticket is."""
        if self.winner is None:
            return None
        level = next(level for level in self.levels if level.level == self.winner.level)
        return next(replicate for replicate in level.replicates if replicate.seed == self.winner.seed)


def early_stop(history: Sequence[Evaluation]) -> EarlyStop | None:
    """Return the evaluation with the smallest validation loss, the earliest of equals.

    >>> points = [Evaluation(s, 0.0, loss, 0.5, None, None) for s, loss in ((1, 0.9), (2, 0.4), (3, 0.4))]
    >>> early_stop(points).step
    2
    """
    usable = [point for point in history if point.validation_loss is not None and math.isfinite(point.validation_loss)]
    if not usable:
        return None
    best = min(usable, key=lambda point: point.validation_loss or 0.0)
    return EarlyStop(best.step, best.validation if best.validation is not None else math.nan, best.test)


def matching_tolerance(dense: Level, given: float | None, is_fraction: bool) -> Tolerance:
    """Return what still counts as matching: the given value, or one standard error of the dense replicates.

    With one replicate there is no standard error: half a percentage point of a fraction, half a percent of the dense
    value of any other metric.
    """
    if given is not None:
        return Tolerance(given, "given")
    values = [replicate.validation for replicate in dense.alive]
    if len(values) > 1:
        return Tolerance(float(stats.sem(values)), f"one standard error of {len(values)} dense replicates")
    if is_fraction:
        return Tolerance(0.005, "the default for one replicate")
    return Tolerance(0.005 * abs(dense.validation), "0.5 % of the dense value, the default for one replicate")


def choose_winner(
    levels: Sequence[Level], tolerance: float, higher_is_better: bool
) -> tuple[Winner | None, str | None]:
    """Return the winning ticket: the sparsest pruned level whose validation metric is not worse than dense.

    Looks at validation data only, and compares the mean of a level's living replicates with the mean of the same
    seeds' dense networks: a level must not win because a weak seed diverged. Among the level's replicates the best on
    validation is the ticket, the smallest seed of equals.

    Returns:
        The winner and None, or None and the reason why there is no winner.
    """
    sign = 1 if higher_is_better else -1
    dense, pruned = levels[0], levels[1:]
    if not dense.alive:
        return None, "every dense replicate diverged"
    if not pruned:
        return None, "no level was pruned"
    # Sums of a few float64 fractions: without a hair's breadth, 0.9 - 0.005 >= 0.895 would be chance.
    slack = tolerance + 1e-12
    before = {replicate.seed: replicate.validation for replicate in dense.alive}
    matching = [
        level
        for level in pruned
        if level.alive and sign * (level.validation - _mean([before[r.seed] for r in level.alive])) >= -slack
    ]
    if not matching:
        return None, f"no pruned level is within {tolerance:.4g} of the dense validation metric {dense.validation:.4f}"
    level = min(matching, key=lambda level: (level.density, -level.level))
    best = max(level.alive, key=lambda replicate: (sign * replicate.validation, -replicate.seed))
    return Winner(level.level, best.seed), None


def interval(level: Level, is_fraction: bool, examples: int | None) -> tuple[float, float] | None:
    """Return a 95 % interval of the level's mean test metric.

    Over two or more replicates it is Student's t interval. With one replicate it is Wilson's interval for a fraction
    of so many test examples, which knows nothing of the spread between seeds. None where neither can be had.

    >>> interval(Level(0, ()), True, 100) is None
    True
    """
    values = [replicate.test for replicate in level.alive if replicate.test is not None]
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        return _mean(values) - half, _mean(values) + half
    if len(values) == 1 and is_fraction and examples:
        result = stats.binomtest(round(values[0] * examples), examples).proportion_ci(method="wilson")
        return float(result.low), float(result.high)
    return None


def against_dense(level: Level, dense: Level) -> float | None:
    """Return the mean paired difference of the test metric to the dense network of the same seed."""
    by_seed = {replicate.seed: replicate.test for replicate in dense.alive}
    pairs = [(r.test, by_seed.get(r.seed)) for r in level.alive]
    differences = [test - base for test, base in pairs if test is not None and base is not None]
    return _mean(differences) if differences else None


def as_json(search: Search) -> dict[str, Any]:
    """Return what `--json` prints and `summary.json` holds."""
    winner = search.winning_replicate
    dense = search.levels[0]
    winning: dict[str, Any] | None = None
    if winner is not None:
        level = next(level for level in search.levels if level.level == winner.level)
        winning = {
            "level": level.level,
            "density": level.density,
            "validation": level.validation,
            "dense_validation": dense.validation,
            "test": level.test,
            "dense_test": dense.test,
            "seed": winner.seed,
            "ticket": str(winner.path),
        }
    return {
        "run": str(search.run),
        "seconds": search.seconds,
        "device": search.device,
        "metric": search.metric,
        "higher_is_better": search.higher_is_better,
        "measured_at": search.config.get("measure_at"),
        "tolerance": {"value": search.tolerance.value, "rule": search.tolerance.rule},
        "levels": [_level_json(level, search) for level in search.levels],
        "winning": winning,
        "reason": search.reason,
        "stopped": search.stopped,
    }


def _level_json(level: Level, search: Search) -> dict[str, Any]:
    bounds = interval(level, search.is_fraction, search.test_examples)
    return {
        "level": level.level,
        "density": level.density,
        "sparsity": 1 - level.density,
        "kept": level.kept,
        "prunable": level.prunable,
        "layers": level.layers,
        "validation": level.validation,
        "test": level.test,
        "test_interval": list(bounds) if bounds else None,
        "test_against_dense": against_dense(level, search.levels[0]),
        "replicates": [
            {
                "seed": r.seed,
                "validation": r.validation,
                "test": r.test,
                "steps": r.steps,
                "final": {"validation": r.final_validation, "test": r.final_test},
                "early_stop": vars(r.early_stop) if r.early_stop else None,
                "diverged": r.diverged,
                "ticket": str(r.path),
            }
            for r in level.replicates
        ],
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
