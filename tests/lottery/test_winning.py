"""Matching, the winning ticket, and intervals, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lottery.results.levels import Level, Replicate
from lottery.results.statistics import against_dense, interval
from lottery.results.table import LevelTable
from lottery.results.winning import choose_winner, early_stop, matching_tolerance
from pruning.jobs import Evaluation


def level(number, kept, validation, test=None, diverged=()):
    test = validation if test is None else test
    each = kept if isinstance(kept, list) else [kept] * len(validation)
    return Level(
        number,
        tuple(
            Replicate(
                seed=seed,
                level=number,
                validation=v,
                test=t,
                steps=10,
                final_validation=v,
                final_test=t,
                early_stop=None,
                diverged="nan" if seed in diverged else None,
                kept=each[seed],
                prunable=100,
                layers={"w": each[seed] / 100},
                path=Path(),
                history=(),
            )
            for seed, (v, t) in enumerate(zip(validation, test, strict=True))
        ),
    )


def test_the_sparsest_matching_level_wins_even_after_one_that_does_not_match():
    levels = [level(0, 100, [0.9]), level(1, 80, [0.7]), level(2, 64, [0.896]), level(3, 51, [0.89])]
    winner, reason = choose_winner(levels, 0.005, True)
    assert winner is not None and (winner.level, winner.seed, reason) == (2, 0, None)


def test_matching_is_judged_on_the_mean_and_the_ticket_is_the_best_on_validation():
    levels = [level(0, 100, [0.9, 0.8]), level(1, 80, [0.84, 0.86], test=[0.99, 0.1])]
    winner, _ = choose_winner(levels, 0.0, True)
    assert winner is not None and (winner.level, winner.seed) == (1, 1)


def test_equal_to_dense_minus_tolerance_matches_exactly():
    assert choose_winner([level(0, 100, [0.9]), level(1, 80, [0.895])], 0.005, True)[0] is not None
    assert choose_winner([level(0, 100, [0.9]), level(1, 80, [0.8949])], 0.005, True)[0] is None


@pytest.mark.parametrize("examples", [50, 360, 1000, 9999])
@pytest.mark.parametrize("replicates", [1, 3])
def test_exactly_the_tolerance_matches_for_every_number_of_hits(examples, replicates):
    for missed in (1, 5):
        tolerance = missed / examples
        for right in range(missed + 1, examples + 1, max(1, examples // 97)):
            dense = level(0, 100, [right / examples] * replicates)
            exactly = level(1, 80, [(right - missed) / examples] * replicates)
            worse = level(1, 80, [(right - missed - 1) / examples] * replicates)
            assert choose_winner([dense, exactly], tolerance, True)[0] is not None
            assert choose_winner([dense, worse], tolerance, True)[0] is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("better", [True, False])
def test_exactly_the_tolerance_matches_in_any_unit_and_in_float32(scale, better):
    sign = 1 if better else -1
    for number in range(1, 200):
        dense, exactly = (float(np.float32(value * scale)) for value in (number / 7, number / 7 - sign * 0.005))
        assert choose_winner([level(0, 100, [dense]), level(1, 80, [exactly])], 0.005 * scale, better)[0] is not None


def test_a_metric_that_is_no_number_wins_nothing():
    winner, reason = choose_winner([level(0, 100, [math.nan]), level(1, 80, [0.9])], 1.0, True)
    assert winner is None and reason == "the dense validation metric is not finite: nan"
    assert choose_winner([level(0, 100, [0.9, 0.9]), level(1, 80, [0.9, math.nan])], 1.0, True)[0] is None


def test_replicates_that_keep_other_numbers_of_weights():
    one = level(1, [51, 49, 10], [0.9, 0.8, math.nan], diverged=(2,))
    assert (one.kept, one.kept_range, one.density, one.layers) == (50, (49, 51), 0.5, {"w": 0.5})
    assert isinstance(level(1, 80, [0.9, 0.8]).kept, int)
    assert level(1, [51, 50], [0.9, 0.8]).kept == 50.5
    # Replicate 0 alone would make level 1 the sparser one.
    levels = [level(0, 100, [0.9, 0.9]), level(1, [40, 70], [0.9, 0.9]), level(2, [50, 50], [0.9, 0.9])]
    winner, _ = choose_winner(levels, 0.0, True)
    assert winner is not None and winner.level == 2
    table = LevelTable("accuracy", True, None, 100)
    assert "49–51" in str(table.row(one, level(0, 100, [0.9, 0.9, 0.9])))


def test_for_errors_lower_is_better():
    levels = [level(0, 100, [1.0, 1.0]), level(1, 80, [0.9, 1.2]), level(2, 64, [2.0, 2.0])]
    winner, _ = choose_winner(levels, 0.1, False)
    assert winner is not None and (winner.level, winner.seed) == (1, 0)


def test_no_winner_has_a_reason():
    assert choose_winner([level(0, 100, [0.9])], 0.1, True) == (None, "no level was pruned")
    assert choose_winner([level(0, 100, [0.9], diverged=(0,))], 0.1, True) == (None, "every dense replicate diverged")
    _, reason = choose_winner([level(0, 100, [0.9]), level(1, 80, [0.1])], 0.1, True)
    assert reason == "no pruned level is within 0.1 of the dense validation metric 0.9000"


def test_diverged_replicates_do_not_count():
    levels = [level(0, 100, [0.9, 0.9]), level(1, 80, [math.nan, 0.9], diverged=(0,))]
    winner, _ = choose_winner(levels, 0.0, True)
    assert winner is not None and winner.seed == 1


def test_a_level_does_not_win_because_a_weak_seed_diverged():
    levels = [level(0, 100, [0.9, 0.8]), level(1, 80, [0.86, math.nan], diverged=(1,))]
    assert choose_winner(levels, 0.005, True)[0] is None


def test_tolerance_rules():
    assert matching_tolerance(level(0, 100, [0.9, 0.92, 0.94]), None, True).value == pytest.approx(0.02 / math.sqrt(3))
    assert matching_tolerance(level(0, 100, [0.9]), None, True).value == 0.005
    assert matching_tolerance(level(0, 100, [-200.0]), None, False).value == 1.0
    assert matching_tolerance(level(0, 100, [0.9]), 0.02, True).value == 0.02


def test_replicates_that_agree_are_known_no_better_than_one_example():
    agreed, apart = level(0, 100, [0.9, 0.9, 0.9]), level(0, 100, [0.9, 0.92, 0.94])
    found = matching_tolerance(agreed, None, True, 200)
    assert found.value == 1 / 200
    assert found.rule.startswith("one of 200 validation examples; the standard error of 3 dense replicates is smaller")
    assert matching_tolerance(apart, None, True, 200).rule == "one standard error of 3 dense replicates"
    assert matching_tolerance(level(0, 100, [500.0, 500.0]), None, False, 10).value == 50.0
    assert matching_tolerance(agreed, None, True, None).value == 0.0
    assert choose_winner([agreed, level(1, 80, [0.9, 0.895, 0.89])], found.value, True)[0] is not None


def test_interval_over_replicates_is_students_t():
    bounds = interval(level(0, 100, [0.9, 0.92, 0.94]), True, 1000)
    half = stats.t.ppf(0.975, 2) * 0.02 / math.sqrt(3)
    assert bounds == pytest.approx((0.92 - half, 0.92 + half))


def test_an_interval_of_a_fraction_stays_a_fraction():
    assert interval(level(0, 100, [0.99, 0.9]), True, None) == pytest.approx((0.945 - 0.5718, 1.0), abs=1e-3)


def test_interval_of_one_replicate_is_wilsons():
    # Wilson 1927: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    n, p, z = 100, 0.9, stats.norm.ppf(0.975)
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    assert interval(level(0, 100, [0.9]), True, 100) == pytest.approx(expected)
    assert interval(level(0, 100, [0.9]), False, 100) is None


def test_differences_to_dense_are_paired_by_seed():
    dense = level(0, 100, [0.9, 0.5, 0.7])
    sparse = level(1, 80, [0.8, 0.6, 0.9], diverged=(2,))
    assert against_dense(sparse, dense) == pytest.approx((-0.1 + 0.1) / 2)


def test_early_stop_is_the_first_minimum_of_the_validation_loss():
    def point(step, loss):
        return Evaluation(step, 0.0, loss, step / 10, None, None)

    assert early_stop([]) is None
    assert early_stop([point(1, math.nan)]) is None
    best = early_stop([point(1, 0.5), point(2, 0.2), point(3, 0.2), point(4, 0.9)])
    assert best is not None and (best.step, best.validation) == (2, 0.2)
