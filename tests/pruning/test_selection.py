"""Selection: exact counts, deterministic ties, nesting, and the guard, for any scores."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.criteria import get_criterion
from pruning.errors import BadValue, MaskMismatch
from pruning.jobs import Budget, Job, Trained
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


def one_by_one(scores, mask, target, guard):
    """Selection as it is said: each tensor's best first, then the best of all others; of equal ones the earlier."""
    ranked = [
        (-float(scores[name].flat[i]), position, i, name)
        for position, name in enumerate(mask)
        for i in np.flatnonzero(mask[name])
    ]
    ranked.sort(key=lambda row: (row[0], row[1], row[2]))
    of_tensor = {name: [row for row in ranked if row[3] == name] for name in mask}
    kept = {row for rows in of_tensor.values() for row in rows[:guard]}
    kept |= set([row for row in ranked if row not in kept][: target - len(kept)])
    places = {(name, i) for _, _, i, name in kept}
    return {name: [(name, i) in places for i in range(mask[name].size)] for name in mask}


@given(
    problems(),
    st.integers(0, 4),
    st.sampled_from([np.float32, np.float16, np.int8, np.uint8, bool, ml_dtypes.bfloat16]),
    st.booleans(),
)
def test_it_selects_what_its_definition_says_for_any_kind_of_number(problem, guard, kind, infinite):
    scores, mask, target = problem
    scores = {name: (values % 100).astype(kind) for name, values in scores.items()}
    if infinite and kind in (np.float32, np.float16):
        scores = {n: np.where(s == s.max(), np.inf, np.where(s == s.min(), -np.inf, s)) for n, s in scores.items()}
    least = sum(min(guard, count) for count in mask.counts().values())
    target = max(target, least)
    expected = one_by_one(scores, mask, target, guard)
    assert {name: keep.tolist() for name, keep in select(scores, mask, target, guard).items()} == expected


def test_tensors_longer_than_a_chunk_are_selected_like_short_ones():
    rng = np.random.Generator(np.random.PCG64(1))
    scores = {"a": rng.integers(0, 50, 3_000_000).astype(np.float32), "b": rng.integers(0, 9, 40).astype(np.float64)}
    mask = Mask({name: rng.random(len(values)) < 0.5 for name, values in scores.items()})
    selected = select(scores, mask, 1_000_000, guard=5)
    assert selected.kept == 1_000_000
    kept = np.flatnonzero(selected["a"])
    lowest = scores["a"][kept].min()
    ties = np.flatnonzero((scores["a"] == lowest) & mask["a"])
    assert selected["a"][(scores["a"] > lowest) & mask["a"]].all()
    taken = np.isin(ties, kept)
    assert taken[: int(taken.sum())].all() and not taken.all()


def test_scoring_and_selecting_takes_little_memory_beside_the_scores():
    """The promise for 25 million weights (less than 3 times the scores), on 5 million."""
    shapes = {"a": (2000, 1500), "b": (1000, 1500), "c": (500, 1000)}
    rng = np.random.Generator(np.random.PCG64(0))
    trained = Trained({name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}, history=[])
    job = Job(trained.params, Mask.dense(shapes), 0, Budget(0, 0))
    score, size = get_criterion("magnitude").score, 4 * job.mask.total
    tracemalloc.start()
    try:
        selected = select(score(trained, job), job.mask, 4_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert selected.kept == 4_000_000
    assert size < peak < 3 * size


def test_25_million_scores_need_no_sort_of_objects():
    rng = np.random.Generator(np.random.PCG64(0))
    scores = {"w": rng.random((1000, 1000), np.float32)}
    selected = select(scores, Mask.dense({"w": (1000, 1000)}), 200_000)
    assert selected.kept == 200_000
