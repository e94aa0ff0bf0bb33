"""Matching, the winning ticket, and intervals, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import stats

from lottery.results import Level, Replicate
from lottery.statistics import against_dense, interval
from lottery.winning import choose_winner, early_stop, matching_tolerance
from pruning.jobs import Evaluation


def level(number, kept, validation, test=None, diverged=()):
    test = validation if test is None else test
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
                kept=kept,
                prunable=100,
                layers={"w": kept / 100},
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
