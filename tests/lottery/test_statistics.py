"""Estimates, paired differences, tests and resampling: by hand, and by how often they are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lottery.results.intervals import standard_error, t_quantile, wilson_interval
from lottery.results.levels import Level, Replicate
from lottery.results.resampling import bootstrap, interquartile_mean, middle_half
from lottery.results.statistics import (
    against_dense,
    by_seed,
    holm,
    interval,
    level_estimate,
    mean_t,
    paired_difference,
    paired_t_p,
    sign_flip_p,
)
from pruning.errors import BadValue

A, B = [0.90, 0.92, 0.95], [0.80, 0.80, 0.80]


def level(*tests: float | None, number: int = 1, kept: int = 50, diverged: tuple[int, ...] = ()) -> Level:
    """A level whose replicates have these test metrics, and seeds 0, 1, …"""
    common = {"level": number, "validation": 0.5, "steps": 10, "final_validation": 0.5, "early_stop": None}
    common |= {"kept": kept, "prunable": 100, "layers": {"w": kept / 100}, "path": Path(), "history": ()}
    failed = dict.fromkeys(diverged, "the loss is not finite")
    return Level(
        number,
        tuple(
            Replicate(seed=seed, test=test, final_test=test, diverged=failed.get(seed), **common)
            for seed, test in enumerate(tests)
        ),
    )


def test_the_t_interval_by_hand():
    # mean 2, standard deviation 1, standard error 1 / √3, t(0.975, 2) = 4.302653
    found = mean_t([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.value, found.n, found.method) == (2.0, 3, "Student's t")
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)


def test_intervals_are_those_of_scipy_bit_by_bit():
    """They are computed without `scipy.stats`, which takes a second to import."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 10, 1000):
        values = rng.normal(size=n)
        assert t_quantile(n - 1) == stats.t.ppf(0.975, n - 1)
        assert standard_error(values) == standard_error(values.tolist()) == stats.sem(values)
        for right in {0, 1, n // 2, n}:
            expected = stats.binomtest(right, n).proportion_ci(method="wilson")
            assert wilson_interval(right, n) == (expected.low, expected.high)


def test_a_paired_difference_by_hand():
    # differences 0.10, 0.12, 0.15: mean 0.37 / 3, standard error 0.0145297
    found = paired_difference(A, B)
    assert found is not None and found.low is not None
    assert found.value == pytest.approx(0.37 / 3)
    assert found.low == pytest.approx(0.37 / 3 - 4.302653 * 0.0145297, abs=1e-6)
    assert paired_t_p(A, B) == pytest.approx(stats.ttest_rel(A, B).pvalue)


@pytest.mark.parametrize("statistic", [mean_t, bootstrap, interquartile_mean])
def test_nothing_gives_none_one_value_no_interval_and_equal_values_no_width(statistic):
    assert statistic([]) is None
    one = statistic([0.7])
    assert (one.value, one.low, one.high, one.n) == (0.7, None, None, 1)
    equal = statistic([0.7, 0.7, 0.7, 0.7])
    assert (equal.low, equal.high) == pytest.approx((0.7, 0.7))
    with pytest.raises(BadValue, match="finite: leave out what diverged"):
        statistic([0.7, np.nan])


def test_without_spread_there_is_no_t_test():
    assert paired_t_p([0.9, 0.8], [0.8, 0.7]) is None
    assert paired_t_p([0.9], [0.8]) is None
    assert paired_difference([], []) is None
    with pytest.raises(BadValue, match="as many values on either side, not 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])


def test_flipped_signs_by_hand():
    # |sum| of ±1 ±2 ±3 reaches 6 twice of 8, and 4 four times
    assert sign_flip_p([1, 2, 3], [0, 0, 0]) == 2 / 8
    assert sign_flip_p([-1, 2, 3], [0, 0, 0]) == 4 / 8
    assert sign_flip_p([0.1, 0.2, 0.3], [0.2, 0.1, 0.3]) == 1.0
    assert sign_flip_p(np.full(10, 0.3), np.full(10, 0.1)) == 2 / 2**10
    assert sign_flip_p([], []) is None


def test_flipped_signs_agree_with_scipy_and_with_a_sample_of_the_signs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 9), rng.normal(0, 1, 9)
    exact = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=512)
    assert sign_flip_p(a, b) == pytest.approx(exact.pvalue)
    many, none = rng.normal(0.4, 1, 30), np.zeros(30)
    assert sign_flip_p(many, none) == pytest.approx(paired_t_p(many, none), abs=0.02)


def test_holm_by_hand():
    # 0.01 · 4, then max with 0.015 · 3, 0.03 · 2, 0.6 · 1
    assert holm([0.03, 0.01, 0.6, 0.015]) == pytest.approx([0.06, 0.04, 0.6, 0.045])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0
    with pytest.raises(BadValue, match="between 0 and 1"):
        holm([1.2])


@pytest.mark.parametrize("n", [4, 8, 20])
def test_the_interquartile_mean_is_the_trimmed_mean_where_a_quarter_is_whole(n):
    values = np.random.default_rng(n).normal(size=n)
    assert middle_half(values) == pytest.approx(stats.trim_mean(values, 0.25))


@pytest.mark.parametrize(
    ("values", "wanted"),
    # of five, a quarter is 1.25: the ends go, their neighbours count 0.75
    [([0, 1, 2, 3, 100], (0.75 * 1 + 2 + 0.75 * 3) / 2.5), ([1, 5], 3), ([4], 4), ([0, 2, 3, 4, 5, 99], 10.5 / 3)],
)
def test_the_interquartile_mean_weighs_what_lies_across_a_quarter(values, wanted):
    assert middle_half(values) == pytest.approx(wanted)


def test_a_matrix_is_resampled_within_its_tasks():
    """Tasks of very different level: runs change places within a task only, so that the interval is narrow."""
    rng = np.random.default_rng(0)
    runs = np.array([0.1, 0.5, 0.9]) + 0.01 * rng.normal(size=(8, 3))
    stratified, pooled = interquartile_mean(runs), interquartile_mean(runs.ravel())
    assert stratified is not None and stratified.low is not None and stratified.high is not None
    assert pooled is not None and pooled.low is not None and pooled.high is not None
    assert stratified.value == pooled.value
    assert (stratified.n, stratified.method) == (8, "stratified percentile bootstrap")
    assert stratified.high - stratified.low < 0.3 * (pooled.high - pooled.low)
    assert stratified.low <= stratified.value <= stratified.high


def test_the_bootstrap_is_seeded_and_says_where_bca_does_not_exist():
    values = np.random.default_rng(1).exponential(size=12)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap(values, seed=4)
    found = bootstrap(values, np.median)
    assert found is not None and found.method == "BCa bootstrap"
    # Without any one of them the median stays 1: there is no acceleration to correct for.
    flat = bootstrap([1.0, 1.0, 1.0, 5.0], np.median)
    assert flat is not None and (flat.method, flat.low, flat.high) == ("percentile bootstrap", 1.0, 5.0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 400 samples: 95 % within three standard errors for the t interval, a little less for a bootstrap of 20."""
    rng = np.random.default_rng(7)

    def coverage(estimate, samples, truth):
        return np.mean([found.low <= truth <= found.high for found in map(estimate, samples)])

    assert coverage(mean_t, rng.normal(3, 2, (400, 5)), 3) == pytest.approx(0.95, abs=0.033)
    few = rng.exponential(size=(200, 20))
    assert coverage(lambda sample: bootstrap(sample, resamples=499), few, 1) == pytest.approx(0.93, abs=0.05)
    symmetric = rng.normal(0, 1, (200, 20))
    found = coverage(lambda sample: interquartile_mean(sample, resamples=499), symmetric, 0)
    assert found == pytest.approx(0.93, abs=0.05)


def test_tests_are_wrong_no_more_often_than_they_say():
    rng = np.random.default_rng(8)
    null = rng.normal(size=(400, 6))
    for test in (paired_t_p, sign_flip_p):
        found = np.mean([(test(sample, np.zeros(6)) or 0.0) <= 0.05 for sample in null])
        assert found <= 0.05 + 0.033
    families = rng.random((400, 8))
    assert np.mean([holm(family).min() <= 0.05 for family in families]) == pytest.approx(0.05, abs=0.033)


def test_a_level_counts_seeds_that_lived():
    dense, pruned = level(0.80, 0.90, 0.70, number=0), level(0.85, 0.91, 0.10, diverged=(2,))
    assert by_seed(pruned) == {0: 0.85, 1: 0.91}
    assert against_dense(pruned, dense) == pytest.approx(0.03)
    assert by_seed(level(None)) == {0: 0.5}
    assert against_dense(level(None), dense) is None


def test_the_estimate_of_a_level_has_the_interval_of_the_table():
    many, one = level(0.99, 1.0, 0.97), level(0.9)
    for each, method in ((many, "Student's t"), (one, "Wilson")):
        found, bounds = level_estimate(each, True, 100), interval(each, True, 100)
        assert found is not None and (found.low, found.high) == bounds
        assert found.method == method
    assert interval(many, True, 100) == (pytest.approx(0.9487, abs=1e-4), 1.0)
    assert level_estimate(level(0.9, diverged=(0,)), True, 100) is None
