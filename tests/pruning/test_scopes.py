"""Scopes: level totals are divided exactly, as the papers say, and never so that masks could not be nested."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue, UnknownName
from pruning.ladder import Target
from pruning.scopes import SCOPES, PrunableTensors, Schedule, level_totals, place, scope
from pruning.scopes.filling import fill

LENET = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "fc3.weight": (10, 100)}
CONV = {"conv1": (4, 5, 5, 1), "conv2": (4, 1, 5, 5), "fc": (10, 10)}
DIVIDED = ("erk", "uniform", "smart-ratio")


def dense(shapes):
    return PrunableTensors(shapes, {name: math.prod(shape) for name, shape in shapes.items()})


def total(target):
    return target if isinstance(target, int) else sum(target.values())


@st.composite
def networks(draw):
    shape = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)
    shapes = {f"t{i}": s for i, s in enumerate(draw(st.lists(shape, min_size=1, max_size=6)))}
    sizes = {name: draw(st.integers(1, math.prod(shape))) for name, shape in shapes.items()}
    return PrunableTensors(shapes, sizes)


@pytest.mark.parametrize("name", DIVIDED)
@given(networks(), st.data())
def test_any_total_is_met_exactly_in_any_network(name, tensors, data):
    least = sum(min(2, size) for size in tensors.sizes.values())
    goal = data.draw(st.integers(least, sum(tensors.sizes.values())))
    of_all = sum(tensors.totals.values())
    middle = (goal + sum(tensors.sizes.values())) // 2
    # Decimals long enough that their exact rationals round to these very totals.
    schedule = Schedule(densities=tuple(round(kept / of_all, 9) for kept in (middle, goal)), guard=2)
    ladder = place(name, schedule, tensors)
    assert [total(target) for target in ladder] == [sum(tensors.sizes.values()), middle, goal]
    assert ladder[0] == tensors.sizes
    for before, after in itertools.pairwise(ladder):
        assert isinstance(before, dict) and isinstance(after, dict)
        assert all(min(2, tensors.sizes[n]) <= after[n] <= before[n] for n in tensors.sizes)


@pytest.mark.parametrize("name", ["global", *DIVIDED])
@pytest.mark.parametrize("how", [{"levels": 9}, {"sparsity": 0.95}, {"densities": (0.9, 0.9, 0.123, 0.05)}], ids=str)
def test_a_scope_changes_where_and_not_how_many(name, how):
    ladder = place(name, Schedule(**how), dense(LENET))
    assert [total(target) for target in ladder] == level_totals(Schedule(**how), dense(LENET))
    assert ladder[-1] != ladder[0]


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 5), st.integers(0, 200)), min_size=1, max_size=8), st.data()
)
def test_filling_is_the_same_multiple_for_all_within_the_bounds(rows, data):
    shares = {str(i): share for i, (share, _, _) in enumerate(rows)}
    least = {str(i): low for i, (_, low, _) in enumerate(rows)}
    most = {str(i): low + more for i, (_, low, more) in enumerate(rows)}
    goal = data.draw(st.integers(sum(least.values()), sum(most.values())))
    counts = fill(goal, shares, least, most)
    assert sum(counts.values()) == goal
    assert all(least[n] <= counts[n] <= most[n] for n in shares)
    low, high = 0.0, 1000.0
    for _ in range(80):  # the multiple, by bisection
        middle = (low + high) / 2
        filled = sum(min(max(middle * shares[n], least[n]), most[n]) for n in shares)
        low, high = (middle, high) if filled <= goal else (low, middle)
    assert all(abs(counts[n] - min(max(low * shares[n], least[n]), most[n])) < 1 + 1e-6 for n in shares)


def test_of_equal_remainders_the_earlier_tensor_gets_the_weight():
    bounds = dict.fromkeys("abc", 0), dict.fromkeys("abc", 10)
    assert fill(5, dict.fromkeys("abc", 7), *bounds) == {"a": 2, "b": 2, "c": 1}
    with pytest.raises(BadValue, match="31 weights cannot be divided among 3 tensors that hold 0 to 30"):
        fill(31, dict.fromkeys("abc", 7), *bounds)


def test_erk_by_hand():
    tensors = dense({"a": (10, 10), "b": (100, 10)})
    # densities 20/100 : 110/1000, counts 20 : 110
    assert place("erk", Schedule(densities=(0.1,)), tensors)[1] == {"a": 17, "b": 93}
    kernels = dense({"conv": (8, 4, 3, 3), "fc": (10, 32)})
    # 8 + 4 + 3 + 3 = 18 and 10 + 32 = 42, of 61 in all: 18.3 and 42.7
    assert place("erk", Schedule(densities=(0.1,)), kernels)[1] == {"conv": 18, "fc": 43}


def test_erk_keeps_small_tensors_dense_and_gives_the_rest_to_the_others():
    tensors = dense({"tiny": (2, 2), "a": (100, 50), "b": (50, 100)})
    assert place("erk", Schedule(densities=(0.5,)), tensors)[1] == {"tiny": 4, "a": 2499, "b": 2499}


def test_erk_is_the_same_in_any_layout():
    torch, jax = dense({"c": (16, 3, 5, 5), "f": (10, 400)}), dense({"c": (5, 5, 3, 16), "f": (400, 10)})
    assert place("erk", Schedule(), torch) == place("erk", Schedule(), jax)


def test_uniform_by_hand():
    assert place("uniform", Schedule(densities=(0.15,)), dense({"a": (10, 10), "b": (30, 1), "c": (10,)}))[1] == {
        "a": 15,
        "b": 5,  # 4.5, of equal remainders the earlier
        "c": 1,  # 1.5
    }


def test_smart_ratio_by_hand():
    # L = 3: 3² + 3 = 12, 2² + 2 = 6; the linear layer 30 %
    assert place("smart-ratio", Schedule(densities=(0.3,)), dense(CONV))[1] == {"conv1": 40, "conv2": 20, "fc": 30}


@pytest.mark.parametrize(
    ("density", "counts"),
    [
        (0.9, {"conv1": 100, "conv2": 100, "fc": 70}),
        (0.02, {"conv1": 1, "conv2": 1, "fc": 4}),
        (0.45, {"conv1": 70, "conv2": 35, "fc": 30}),
        (0.6, {"conv1": 100, "conv2": 50, "fc": 30}),
    ],
)
def test_smart_ratio_gives_the_linear_layer_what_fits(density, counts):
    assert place("smart-ratio", Schedule(densities=(density,)), dense(CONV))[1] == counts


def test_a_table_falls_geometrically_to_the_densities_it_names():
    tensors = dense({"a.weight": (1000,), "b.weight": (100, 10), "c.weight": (7,)})
    densities = {"b.weight": 0.5, "*.weight": 0.1, "c*": 1.0}
    assert place("table", Schedule(levels=2, layer_densities=densities), tensors) == [
        {"a.weight": 1000, "b.weight": 1000, "c.weight": 7},
        {"a.weight": 316, "b.weight": 707, "c.weight": 7},  # 1000 · √0.1, 1000 · √0.5
        {"a.weight": 100, "b.weight": 500, "c.weight": 7},
    ]
    assert place("table", Schedule(levels=1, layer_densities={"a*": 0.0125}), tensors)[1] == {
        "a.weight": 13,  # 12.5, half up
        "b.weight": 1000,
        "c.weight": 7,
    }


@given(st.integers(1, 10**6), st.integers(1, 999), st.integers(1, 20))
def test_a_table_follows_the_closed_form(size, thousandths, levels):
    density = thousandths / 1000
    schedule = Schedule(levels=levels, layer_densities={"w": density}, guard=0)
    ladder = place("table", schedule, dense({"w": (size,)}))
    for level, target in enumerate(ladder):
        assert abs(total(target) - size * density ** (level / levels)) <= 0.5 + 1e-6
    assert all(total(a) >= total(b) for a, b in itertools.pairwise(ladder))


def test_a_network_that_was_already_pruned_goes_on_from_there():
    tensors = PrunableTensors({"a": (100,), "b": (100,)}, {"a": 10, "b": 90})
    assert place("uniform", Schedule(densities=(0.4, 0.1)), tensors)[1:] == [{"a": 10, "b": 70}, {"a": 10, "b": 10}]
    assert place("table", Schedule(levels=1, layer_densities={"b": 0.5}), tensors)[1] == {"a": 10, "b": 50}


@pytest.mark.parametrize("name", SCOPES.names())
def test_every_scope_says_what_it_is_and_begins_with_the_network(name):
    entry = SCOPES[name]
    assert entry.summary and entry.source
    densities = {"*": 0.4} if "layer_densities" in entry.value.reads else {}
    ladder = place(name, Schedule(levels=3, layer_densities=densities), dense(LENET))
    assert len(ladder) == 4
    assert total(ladder[0]) == 266_200


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("layr", {}, UnknownName, "unknown scope 'layr': did you mean 'layer'"),
        ("erk", {"layer_rates": {"fc": 0.1}}, BadValue, "layer_rates need scope 'layer'; scope 'erk'"),
        ("layer", {"layer_densities": {"fc": 0.1}}, BadValue, "layer_densities need scope 'table'; scope 'layer'"),
        ("layer", {"layer_rates": {"f9": 0.1}}, UnknownName, "layer_rates: 'f9' matches no tensor"),
        ("table", {}, BadValue, "'table' needs layer_densities"),
        ("table", {"layer_densities": {"f9": 0.1}}, UnknownName, "layer_densities: 'f9' matches no tensor"),
        ("table", {"layer_densities": {"fc": 90}}, BadValue, "write 0.9 for 90 %"),
        ("table", {"layer_densities": {"fc": 0.0}}, BadValue, "density must be more than 0"),
        ("table", {"layer_densities": {"fc": 0.001}}, BadValue, "0 of the 100 weights of 'fc'; the guard asks for 1"),
        ("table", {"layer_densities": {"fc": 0.1}, "sparsity": 0.9}, BadValue, "give levels instead of sparsity"),
        ("table", {"layer_densities": {"fc": 0.1}, "densities": (0.9,)}, BadValue, "instead of densities"),
        ("erk", {"levels": 30}, BadValue, "level 22 would keep 2 weights for 3 tensors"),
        ("smart-ratio", {"sparsity": 0.99, "guard": 5}, BadValue, "less than the 5 weights of the guard"),
        ("uniform", {"densities": (0.5, 0.6)}, BadValue, "0.5 is followed by 0.6"),
    ],
)
def test_what_cannot_be_met_is_one_clear_line(name, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        place(name, Schedule(**settings), dense(CONV))
    assert "\n" not in str(caught.value)


def test_more_than_there_is_is_an_error():
    tensors = PrunableTensors({"a": (100,), "b": (100,)}, {"a": 10, "b": 90})
    with pytest.raises(BadValue, match="density 0.2 of 'a' is more than that of the network as given"):
        place("table", Schedule(layer_densities={"a": 0.2}), tensors)
    with pytest.raises(BadValue, match="more than that of the network as given"):
        place("erk", Schedule(densities=(0.8,)), tensors)


def test_a_new_scope_is_one_function():
    @scope("first-only", source="here")
    def first_only(schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
        """Prune the first tensor alone."""
        first = next(iter(tensors.sizes))
        halves = range(schedule.levels + 1)
        return [{**tensors.sizes, first: tensors.sizes[first] // 2**level} for level in halves]

    try:
        assert place("first-only", Schedule(levels=1), dense(CONV))[1] == {"conv1": 50, "conv2": 100, "fc": 100}
    finally:
        SCOPES._entries.pop("first-only")
