"""Statistics of a level: intervals and paired differences."""

from __future__ import annotations

from scipy import stats

from lottery.results import Level, mean


def interval(level: Level, is_fraction: bool, examples: int | None) -> tuple[float, float] | None:
    """Return a 95 % interval of the level's mean test metric.

    Over two or more replicates it is Student's t interval (of a fraction, within 0 and 1). With one replicate it is
    Wilson's interval for a fraction of so many test examples, which knows nothing of the spread between seeds. None
    where neither can be had.

    >>> interval(Level(0, ()), True, 100) is None
    True
    """
    values = [replicate.test for replicate in level.alive if replicate.test is not None]
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        low, high = mean(values) - half, mean(values) + half
        return (max(0.0, low), min(1.0, high)) if is_fraction else (low, high)
    if len(values) == 1 and is_fraction and examples:
        result = stats.binomtest(round(values[0] * examples), examples).proportion_ci(method="wilson")
        return float(result.low), float(result.high)
    return None


def against_dense(level: Level, dense: Level) -> float | None:
    """Return the mean paired difference of the test metric to the dense network of the same seed."""
    by_seed = {replicate.seed: replicate.test for replicate in dense.alive}
    pairs = [(r.test, by_seed.get(r.seed)) for r in level.alive]
    differences = [test - base for test, base in pairs if test is not None and base is not None]
    return mean(differences) if differences else None
