"""Signal-to-noise ratio: hand-computed cases, certainty, extremes, and its order through selection."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pruning.criteria import CRITERIA, get_criterion
from pruning.errors import BadValue, MaskMismatch
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.selection import select

SNR = get_criterion("snr").score
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def score(params, std, mask=None):
    params = {name: np.asarray(value, np.float32) for name, value in params.items()}
    std = {name: np.asarray(value, np.float32) for name, value in std.items()} if std is not None else None
    mask = Mask(mask or {name: np.ones(value.shape) for name, value in params.items()})
    return SNR(Trained(params, history=[], std=std), Job(params, mask, 0, Budget(0, 1)))


def test_by_hand():
    got = score({"w": [[-3.0, 1.0], [0.5, 0.0]]}, {"w": [[1.5, 4.0], [0.125, 2.0]]})
    assert got["w"].tolist() == [[2.0, 0.25], [4.0, 0.0]]


def test_it_asks_for_the_standard_deviation_and_cites_its_source():
    assert get_criterion("snr").needs == {"std"}
    assert "2306.00045" in CRITERIA["snr"].source


def test_certain_weights_rank_above_all_others_by_their_size():
    w = [1e-30, 3e38, 2.0, 1.0, 0.0, 1e-45]
    std = [0.0, 1e-45, 0.0, 0.5, 0.0, 0.0]
    got = score({"w": w}, {"w": std})["w"]
    assert np.isfinite(got).all()
    assert got.argsort()[::-1].tolist() == [2, 0, 5, 1, 3, 4]
    assert got[4] == 0


def test_a_survivor_that_is_zero_scores_zero_whatever_its_standard_deviation():
    assert score({"w": [0.0, -0.0, 0.0]}, {"w": [0.0, 1e-45, 1e30]})["w"].tolist() == [0.0, 0.0, 0.0]


def test_a_removed_weight_can_never_win():
    got = score({"w": [0.0, 0.0, 5.0]}, {"w": [0.0, 0.0, np.nan]}, {"w": [1, 1, 0]})["w"]
    assert got[2] < got[:2].min()
    mask = Mask({"w": [1, 1, 0]})
    assert select({"w": got}, mask, 1)["w"].tolist() == [True, False, False]


def test_ratios_compete_across_tensors():
    params, std = {"a": [1.0, 2.0], "b": [0.1, 0.2]}, {"a": [1.0, 1.0], "b": [0.01, 0.2]}
    mask = Mask({"a": np.ones(2), "b": np.ones(2)})
    kept = select(score(params, std), mask, 2, guard=0)
    assert {name: keep.tolist() for name, keep in kept.items()} == {"a": [False, True], "b": [True, False]}


@given(st.data(), st.integers(1, 30))
def test_scores_are_finite_and_ordered_as_the_exact_ratios_for_any_floats(data, size):
    w = data.draw(arrays(np.float32, size, elements=FLOATS))
    std = data.draw(arrays(np.float32, size, elements=st.floats(0, width=32, allow_infinity=False)))
    got = score({"w": w}, {"w": std})["w"]
    assert np.isfinite(got).all() and (got >= 0).all()

    def exact(i):
        if w[i] == 0 or std[i] == 0:
            return (int(w[i] != 0), Fraction(abs(float(w[i]))))
        return (0, Fraction(abs(float(w[i]))) / Fraction(float(std[i])))

    by_score = sorted(range(size), key=lambda i: got[i])
    ratios = [exact(i) for i in by_score]
    for lower, higher in itertools.pairwise(ratios):
        # Two ratios closer than a rounding of float64 may tie.
        assert lower <= higher or (lower[0] == higher[0] and float(lower[1] / higher[1]) <= 1 + 1e-15)


def test_extremes_do_not_overflow_in_any_precision():
    w, std = np.array([1e20, 1e-30]), np.array([1e-38, 1e30])
    assert np.isfinite(score({"w": w}, {"w": std})["w"]).all()
    mask = Mask({"w": np.ones(4)})
    huge = {"w": np.array([1e300, 1e-300, 1e300, 0.0])}
    got = SNR(Trained(huge, [], std={"w": np.array([1e-300, 1e300, 0.0, np.inf])}), Job(huge, mask, 0, Budget(0, 1)))[
        "w"
    ]
    assert np.isfinite(got).all()
    assert got.argsort().tolist() == [3, 1, 0, 2]


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_selection_by_it_keeps_exactly_the_highest_ratios(seed, fraction):
    rng = np.random.Generator(np.random.PCG64(seed))
    params = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("a", (7, 9)), ("b", (20,)))}
    std = {name: rng.exponential(size=value.shape).astype(np.float32) + 1e-3 for name, value in params.items()}
    mask = Mask({name: rng.random(value.shape) < 0.8 for name, value in params.items()})
    target = max(2, round(fraction * mask.kept))
    kept = select(score(params, std, mask), mask, target, guard=0)
    ratio = {name: np.abs(params[name].astype(float)) / std[name] for name in params}
    survivors = np.sort(np.concatenate([ratio[name][mask[name]] for name in mask]))[::-1]
    assert kept.kept == target and kept.issubset(mask)
    assert np.array_equal(np.sort(np.concatenate([ratio[n][kept[n]] for n in kept]))[::-1], survivors[:target])


@pytest.mark.parametrize(
    ("std", "error", "message"),
    [
        (None, BadValue, "'snr' needs the standard deviation of 'w'"),
        ({"v": [1.0, 1.0]}, BadValue, "'snr' needs the standard deviation of 'w'"),
        ({"w": [1.0, -1.0]}, BadValue, "'w' holds negative values or NaN"),
        ({"w": [1.0, np.nan]}, BadValue, "'w' holds negative values or NaN"),
        ({"w": [1.0]}, MaskMismatch, r"'w': expected shape \(2,\), got \(1,\)"),
    ],
)
def test_a_standard_deviation_that_is_missing_or_wrong_is_one_clear_line(std, error, message):
    with pytest.raises(error, match=message) as caught:
        score({"w": [1.0, 2.0]}, std)
    assert "\n" not in str(caught.value)
