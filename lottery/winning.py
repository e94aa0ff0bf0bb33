"""Matching and winning: which level is as good as dense, and which ticket that makes the winner."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from lottery.results import EarlyStop, Level, Tolerance, Winner, mean
from pruning.jobs import Evaluation


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
        if level.alive and sign * (level.validation - mean([before[r.seed] for r in level.alive])) >= -slack
    ]
    if not matching:
        return None, f"no pruned level is within {tolerance:.4g} of the dense validation metric {dense.validation:.4f}"
    level = min(matching, key=lambda level: (level.density, -level.level))
    best = max(level.alive, key=lambda replicate: (sign * replicate.validation, -replicate.seed))
    return Winner(level.level, best.seed), None
