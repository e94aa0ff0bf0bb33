"""Schedules: the paper's ladders to the exact weight, and every ladder falls to where it should."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue
from pruning.ladder import explicit, geometric, until_sparsity

LENET = {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000}
LENET_RATES = {"fc1.weight": 0.2, "fc2.weight": 0.2, "fc3.weight": 0.1}


def total(target):
    return target if isinstance(target, int) else sum(target.values())


def test_the_lenet_ladder_of_frankle_and_carbin():
    """Frankle & Carbin 2019, figures 3 and 4: percent remaining at 20 % a round, 10 % of the output layer."""
    percents = [100 * total(level) / 266_200 for level in geometric(LENET, LENET_RATES, 20, "layer")]
    assert [round(p, 1) for p in percents] == [
        100, 80.0, 64.1, 51.3, 41.1, 32.9, 26.3, 21.1, 16.9, 13.5, 10.8, 8.7, 7.0, 5.6, 4.5, 3.6, 2.9, 2.3, 1.9,
        1.5, 1.2,
    ]  # fmt: skip
    assert [round(percents[level], 2) for level in (7, 9, 15)] == [21.07, 13.52, 3.58]


def test_the_lenet_ladder_to_the_exact_weight():
    ladder = geometric(LENET, LENET_RATES, 15, "layer")
    by_hand = {name: int(LENET[name] * (1 - Fraction(str(LENET_RATES[name]))) ** 7 + Fraction(1, 2)) for name in LENET}
    assert ladder[7] == by_hand == {"fc1.weight": 49_325, "fc2.weight": 6_291, "fc3.weight": 478}
    assert total(ladder[7]) == 56_094


def test_the_global_ladder_of_lange_and_sprekeler():
    """Lange & Sprekeler 2023, algorithm 1: 0.8 ** level of 11,240 kernel weights."""
    ladder = geometric({"w": 11_240}, {"w": 0.2}, 19, "global")
    percents = [100 * total(level) / 11_240 for level in ladder]
    assert [round(p, 1) for p in percents[:6]] == [100, 80, 64, 51.2, 41.0, 32.8]
    assert round(percents[19], 2) == 1.44


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(50, 10_000), min_size=1, max_size=5),
    st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5]),
    st.integers(0, 5),
    st.sampled_from(["global", "layer"]),
)
def test_geometric_ladders_fall_and_match_the_closed_form(sizes, rate, levels, scope):
    ladder = geometric(sizes, {name: rate for name in sizes}, levels, scope)  # noqa: C420
    assert len(ladder) == levels + 1
    assert total(ladder[0]) == sum(sizes.values())
    assert all(total(a) >= total(b) for a, b in itertools.pairwise(ladder))
    rounding = 0.5 if scope == "global" else 0.5 * len(sizes)
    for level, target in enumerate(ladder):
        assert abs(total(target) - sum(sizes.values()) * (1 - rate) ** level) <= rounding + 1e-6


@given(st.integers(500, 10_000), st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.95]), st.sampled_from(["global", "layer"]))
def test_until_sparsity_lands_exactly(size, sparsity, scope):
    sizes = {"a": size, "b": 3 * size}
    ladder = until_sparsity(sizes, {"a": 0.2, "b": 0.2 if scope == "global" else 0.1}, sparsity, scope)
    goal = int(4 * size * (1 - Fraction(str(sparsity))) + Fraction(1, 2))
    assert total(ladder[-1]) == goal
    assert all(total(a) > total(b) for a, b in itertools.pairwise(ladder))


def test_explicit_densities():
    assert explicit({"a": 10, "b": 10}, [0.5, 0.5, 0.1], "global") == [20, 10, 10, 2]
    assert explicit({"a": 10, "b": 20}, [0.5], "layer") == [{"a": 10, "b": 20}, {"a": 5, "b": 10}]
    assert explicit({"a": 10}, [1.0, 0.5], "global") == [10, 10, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: geometric({"a": 10}, {"a": 1.2}, 1, "global"), "prune_rate.*not 1.2"),
        (lambda: geometric({"a": 10}, {"a": 0.2}, -1, "global"), "0 or more"),
        (lambda: geometric({"a": 10, "b": 10}, {"a": 0.2, "b": 0.1}, 1, "global"), "one rate"),
        (lambda: geometric({"a": 10}, {"a": 0.5}, 5, "layer"), "level 5 would leave less than one weight in 'a'"),
        (lambda: geometric({"a": 10, "b": 10}, {"a": 0.5, "b": 0.5}, 4, "global"), "level 4 would keep 1 weights"),
        (lambda: until_sparsity({"a": 10}, {"a": 0.2}, 90, "global"), "write 0.9 for 90 %"),
        (lambda: until_sparsity({"a": 10}, {"a": 0.2}, 1.0, "global"), "less than 1"),
        (lambda: until_sparsity({"a": 9}, {"a": 0.05}, 0.5, "global"), "no longer remove a weight"),
        (lambda: until_sparsity({"a": 900, "b": 5}, {"a": 0.2, "b": 0.5}, 0.9, "layer"), "less than one weight in 'b'"),
        (lambda: explicit({"a": 10}, [0.5, 0.6], "global"), "0.5 is followed by 0.6"),
        (lambda: explicit({"a": 10}, [50], "global"), "write 0.5 for 50 %"),
        (lambda: explicit({"a": 10}, [0.01], "layer"), "less than one weight"),
    ],
)
def test_impossible_ladders_are_errors(call, message):
    with pytest.raises(BadValue, match=message):
        call()
