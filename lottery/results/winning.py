"""Matching and winning: which level is as good as dense, and which ticket that makes the winner."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lottery.results.intervals import standard_error
from lottery.results.levels import EarlyStop, Level, Tolerance, Winner, mean
from pruning.jobs import Evaluation

FLOAT32_EPSILON = 2.0**-23


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
    return EarlyStop(best.step, best.validation if best.validation is not None else math.nan, tested(best))


def tested(point: Evaluation) -> float | None:
    """Return the test metric of an evaluation, or None where the loss on the test part is no number.

    An accuracy of outputs that are NaN is a number all the same: that of always answering with the first class.
    """
    broken = point.test_loss is not None and math.isnan(point.test_loss)
    return None if broken else point.test


def matching_tolerance(dense: Level, given: float | None, is_fraction: bool, examples: int | None = None) -> Tolerance:
    """Return what still counts as matching: the given value, or one standard error of the dense replicates.

    The standard error has a floor, one validation example: replicates that happen to agree have a standard error of 0,
    but what they agree on is known no better than the sample allows, and a network that misses one example more has
    not shown to be worse. Of a fraction that is 1 / examples, of another metric the same share of the dense value.

    With one replicate there is no standard error: half a percentage point of a fraction, half a percent of the dense
    value of any other metric.

    Args:
        dense: level 0.
        given: by the caller, or None.
        is_fraction: whether the metric is a fraction of examples.
        examples: size of the validation part; None where it is not known, and then there is no floor.

    >>> matching_tolerance(Level(0, ()), 0.01, True).rule
    'given'
    """
    if given is not None:
        return Tolerance(given, "given")
    values = [replicate.validation for replicate in dense.alive]
    if len(values) > 1:
        error, floor = standard_error(values), 0.0
        if examples:
            floor = (1.0 if is_fraction else abs(dense.validation)) / examples
        if error >= floor:
            return Tolerance(error, f"one standard error of {len(values)} dense replicates")
        unit = "one" if is_fraction else "the dense value's share of one"
        return Tolerance(
            floor,
            f"{unit} of {examples:,} validation examples; the standard error of {len(values)} dense replicates is "
            f"smaller, {error:.2g}",
        )
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
    if not math.isfinite(dense.validation):
        return None, f"the dense validation metric is not finite: {dense.validation}"
    before = {replicate.seed: replicate.validation for replicate in dense.alive}
    matching = [
        level
        for level in pruned
        if level.alive
        and _matches(sign * level.validation, sign * mean([before[r.seed] for r in level.alive]), tolerance)
    ]
    if not matching:
        return None, f"no pruned level is within {tolerance:.4g} of the dense validation metric {dense.validation:.4f}"
    level = min(matching, key=lambda level: (level.density, -level.level))
    best = max(level.alive, key=lambda replicate: (sign * replicate.validation, -replicate.seed))
    return Winner(level.level, best.seed), None


def _matches(value: float, dense: float, tolerance: float) -> bool:
    """Say whether a value is no more than the tolerance below dense, higher being better; NaN is not.

    Exactly the tolerance is within it: what the last digit of a float32 (of a metric that was computed so) makes up
    decides nothing.

    >>> _matches(0.895, 0.9, 0.005), _matches(-10_050.0, -10_000.0, 50.0), _matches(0.8949, 0.9, 0.005)
    (True, True, False)
    """
    return value - dense >= -tolerance - 2 * FLOAT32_EPSILON * max(abs(value), abs(dense))
