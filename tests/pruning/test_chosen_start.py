"""Starting tickets: exact densities by scope, masks and weights together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue, UnknownName
from pruning.initializers import INITIALIZERS, chosen_start, get_initializer
from pruning.scopes import PrunableTensors, Schedule, place
from pruning.starts.choosing.densities import kept_counts, thinned
from pruning.starts.tensor import Layout, Tensor

LENET = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
CHOOSING = ("exact-orthogonal", "sao", "constant-fan-in")


def matrix(name, shape, activation="linear"):
    return Tensor(name, np.ones(shape, bool), Layout(shape, (), (0,), (1,)), activation=activation)


def lenet():
    return [matrix(name, shape) for name, shape in LENET.items()]


def lstm():
    return Tensor("lstm", np.ones((64, 16), bool), Layout((4, 16, 16), (0,), (1,), (2,)), ("recurrent",), "gate")


@st.composite
def networks(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5))
    return [matrix(f"t{number}", shape) for number, shape in enumerate(shapes)]


@pytest.mark.parametrize("scope", ["uniform", "er", "erk"])
@given(networks(), st.data())
def test_the_whole_network_keeps_exactly_the_number_asked_for(scope, tensors, data):
    total = sum(tensor.keep.size for tensor in tensors)
    kept = data.draw(st.integers(len(tensors), total))
    counts = kept_counts(tensors, round(kept / total, 9), scope)
    assert sum(counts.values()) == kept
    assert all(1 <= counts[tensor.name] <= tensor.keep.size for tensor in tensors)


@pytest.mark.parametrize("scope", ["uniform", "erk", "smart-ratio"])
def test_counts_are_those_of_the_scopes_of_a_search(scope):
    level = place(
        scope,
        Schedule(densities=(0.03,)),
        PrunableTensors(LENET, {name: math.prod(shape) for name, shape in LENET.items()}),
    )[1]
    assert kept_counts(lenet(), 0.03, scope) == level


def test_er_is_erk_for_matrices_and_leaves_the_taps_of_a_kernel_out():
    assert kept_counts(lenet(), 0.05, "er") == kept_counts(lenet(), 0.05, "erk")
    # (16 + 8) · 9 for the kernel and 24 for the matrix: nine to one.
    kernel = Tensor("conv", np.ones((16, 8, 3, 3), bool), Layout((16, 8, 3, 3), (), (0,), (1,)))
    flax = Tensor("conv", np.ones((3, 3, 8, 16), bool), Layout((3, 3, 8, 16), (), (3,), (2,)))
    for conv in (kernel, flax):
        assert kept_counts([conv, matrix("fc", (16, 8))], 128 / 1280, "er") == {"conv": 115, "fc": 13}


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("scope", ["uniform", "er", "erk"])
def test_a_start_has_exactly_the_density_asked_for_and_nothing_outside_its_mask(name, scope):
    start = chosen_start(lenet(), 0.12, get_initializer(name), seed=0, scope=scope)
    assert {key: int(keep.sum()) for key, keep in start.keep.items()} == kept_counts(lenet(), 0.12, scope)
    for key, values in start.values.items():
        assert values.shape == LENET[key] and not values[~start.keep[key]].any()
        assert start.at_zero[key] == int(start.keep[key].sum() - np.count_nonzero(values))


def test_every_registered_scheme_that_says_so_chooses_its_mask():
    assert {entry.name for entry in INITIALIZERS if entry.value.chooses_mask} >= set(CHOOSING)


def test_any_other_scheme_starts_under_random_masks():
    scheme = get_initializer("unit-scaled")
    start = chosen_start(lenet(), 0.05, scheme, seed=0, scope="uniform")
    assert {key: int(keep.sum()) for key, keep in start.keep.items()} == kept_counts(lenet(), 0.05, "uniform")
    other_masks = chosen_start(lenet(), 0.05, scheme, seed=0, mask_seed=1, scope="uniform")
    assert (start.keep["fc1"] != other_masks.keep["fc1"]).any()
    both = start.keep["fc3"] & other_masks.keep["fc3"]
    other_weights = chosen_start(lenet(), 0.05, scheme, seed=1, mask_seed=0, scope="uniform")
    assert (start.keep["fc1"] == other_weights.keep["fc1"]).all() and both.sum() < 50


def test_masks_and_weights_of_one_seed_are_not_correlated():
    tensor = matrix("fc", (200, 200))
    start = chosen_start([tensor], 0.5, get_initializer("unit-scaled"), seed=3, scope="uniform")
    dense = chosen_start([tensor], 1.0, get_initializer("unit-scaled"), seed=3, scope="uniform")
    assert abs(np.corrcoef(start.keep["fc"].ravel(), dense.values["fc"].ravel())[0, 1]) < 0.02


def test_gates_keep_the_same_number_or_one_more():
    (tensor,) = thinned([lstm()], 258 / 1024, "uniform", seed=0)
    counts = tensor.keep.reshape(4, -1).sum(axis=1)
    assert counts.sum() == 258 and set(counts.tolist()) == {64, 65}


def test_present_masks_do_not_count():
    tensors = [Tensor("fc", np.zeros((10, 10), bool), Layout((10, 10), (), (0,), (1,)))]
    assert kept_counts(tensors, 0.5, "uniform") == {"fc": 50}


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
def test_a_density_out_of_range_is_an_error(density):
    with pytest.raises(BadValue, match="density must be more than 0 and at most 1"):
        kept_counts(lenet(), density)


def test_other_errors_say_what_would_work():
    with pytest.raises(BadValue, match="less than one in each of 3 tensors"):
        kept_counts(lenet(), 5e-6)
    with pytest.raises(BadValue, match="leaves the numbers to scores.*use erk, er or uniform"):
        kept_counts(lenet(), 0.1, "global")
    with pytest.raises(UnknownName, match="did you mean 'er' or 'erk'"):
        kept_counts(lenet(), 0.1, "err")
    embedding = Tensor("words", np.ones((9, 9), bool), Layout((9, 9), (), (0,), (1,)), ("embedding",))
    with pytest.raises(BadValue, match="does not draw 'words'.*leave it dense"):
        chosen_start([embedding], 0.5, get_initializer("exact-orthogonal"), seed=0)
    with pytest.raises(BadValue, match="needs 10; keep 10 or more"):
        chosen_start(lenet(), 0.005, get_initializer("exact-orthogonal"), seed=0, scope="uniform")
