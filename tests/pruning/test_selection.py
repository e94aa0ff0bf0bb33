"""Selection: exact counts, deterministic ties, nesting, and the guard, for any scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue, MaskMismatch
from pruning.mask import Mask
from pruning.selection import select


@st.composite
def problems(draw):
    """Scores with many ties, a mask with survivors in every tensor, and a target that the guard can meet."""
    seed = draw(st.integers(0, 2**32 - 1))
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    distinct = draw(st.sampled_from([1, 2, 5, 1000]))
    rng = np.random.Generator(np.random.PCG64(seed))
    scores = {f"t{i}": rng.integers(0, distinct, size).astype(np.float32) for i, size in enumerate(sizes)}
    mask = {name: rng.random(len(values)) < 0.7 for name, values in scores.items()}
    for keep in mask.values():
        keep[0] = True
    mask = Mask(mask)
    return scores, mask, draw(st.integers(len(sizes), mask.kept))


@given(problems())
def test_global_scope_keeps_exactly_the_target_nested_and_guarded(problem):
    scores, mask, target = problem
    selected = select(scores, mask, target)
    assert selected.kept == target
    assert selected.issubset(mask)
    assert min(selected.counts().values()) >= 1


@given(problems())
def test_without_the_guard_the_best_scores_stay(problem):
    scores, mask, target = problem
    selected = select(scores, mask, target, guard=0)
    kept = np.concatenate([scores[name][selected[name]] for name in mask])
    dropped = np.concatenate([scores[name][mask[name] & ~selected[name]] for name in mask])
    assert len(kept) == target
    if len(kept) and len(dropped):
        assert kept.min() >= dropped.max()


@given(problems())
def test_the_guard_moves_as_few_weights_as_it_must(problem):
    scores, mask, target = problem
    free, guarded = select(scores, mask, target, guard=0), select(scores, mask, target, guard=1)
    emptied = sum(count == 0 for count in free.counts().values())
    assert (free & guarded).kept == target - emptied


@given(problems(), st.floats(0.0, 1.0))
def test_layer_scope_keeps_exactly_each_target(problem, fraction):
    scores, mask, _ = problem
    targets = {name: max(1, round(fraction * count)) for name, count in mask.counts().items()}
    selected = select(scores, mask, targets)
    assert selected.counts() == targets
    assert selected.issubset(mask)


@given(problems())
def test_the_same_scores_give_the_same_mask_whatever_their_type_and_the_scores_of_dead_weights(problem):
    scores, mask, target = problem
    poisoned = {n: np.where(mask[n], s, np.nan).astype(np.float64) for n, s in scores.items()}
    assert select(scores, mask, target) == select(poisoned, mask, target)


def test_of_equal_scores_the_earlier_position_stays():
    mask = Mask({"a": np.ones(4), "b": np.ones(4)})
    scores = {"a": np.ones(4), "b": np.ones(4)}
    selected = select(scores, mask, 5)
    assert selected["a"].tolist() == [True, True, True, True]
    assert selected["b"].tolist() == [True, False, False, False]


def test_infinite_scores_are_ranked():
    mask = Mask({"a": np.ones(3)})
    selected = select({"a": np.array([-np.inf, np.inf, 0.0])}, mask, 2)
    assert selected["a"].tolist() == [False, True, True]


def test_a_global_threshold_empties_no_layer():
    """Regression: rethinking-network-pruning #18 and #50, Early-Bird-Tickets #1."""
    mask = Mask({"big": np.ones(100), "small": np.ones(5)})
    scores = {"big": np.arange(100) + 100.0, "small": np.arange(5.0)}
    assert select(scores, mask, 50).counts() == {"big": 49, "small": 1}
    assert select(scores, mask, 50, guard=3).counts() == {"big": 47, "small": 3}
    assert select(scores, mask, 50, guard=0).counts() == {"big": 50, "small": 0}


def test_a_tensor_that_is_already_empty_stays_empty():
    mask = Mask({"a": np.ones(4), "b": np.zeros(4)})
    selected = select({"a": np.arange(4.0), "b": np.arange(4.0)}, mask, 2)
    assert selected.counts() == {"a": 2, "b": 0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": 7}, BadValue, "7 of 6"),
        ({"target": -1}, BadValue, "cannot leave"),
        ({"target": 1}, BadValue, "cannot leave 1 in each of 2"),
        ({"target": {"a": 1}}, BadValue, "a target for each tensor"),
        ({"target": {"a": 0, "b": 1}}, BadValue, "'a' would keep 0"),
        ({"target": {"a": 4, "b": 1}}, BadValue, "4 of 3"),
        ({"scores": {"a": np.ones(3)}}, MaskMismatch, "scores of 'b'.*got none"),
        ({"scores": {"a": np.ones(3), "b": np.ones(2)}}, MaskMismatch, "'b'.*got \\(2,\\)"),
        ({"scores": {"a": np.ones(3), "b": np.array([1, np.nan, 2])}}, BadValue, "'b' contain NaN"),
    ],
)
def test_what_cannot_be_selected_is_an_error(change, error, message):
    arguments = {
        "scores": {"a": np.ones(3), "b": np.ones(3)},
        "mask": Mask({"a": np.ones(3), "b": np.ones(3)}),
        "target": 3,
    } | change
    with pytest.raises(error, match=message):
        select(**arguments)


def test_25_million_scores_need_no_sort_of_objects():
    rng = np.random.Generator(np.random.PCG64(0))
    scores = {"w": rng.random((1000, 1000), np.float32)}
    selected = select(scores, Mask.dense({"w": (1000, 1000)}), 200_000)
    assert selected.kept == 200_000
