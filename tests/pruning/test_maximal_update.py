"""μP, SμPar and graphs: starts and learning rates that hold over widths, densities and depths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pruning.errors import BadValue, UnknownName
from pruning.initializers import draw, get_initializer
from pruning.initializers.in_degree import dag
from pruning.initializers.maximal_update import mup, smupar
from pruning.starts.scaling.graph import path_lengths, path_sum
from pruning.starts.scaling.learning_rates import learning_rate_factors
from pruning.starts.tensor import Layout, Tensor
from pruning.starts.weight import Place, Weight

INPUT, HIDDEN, OUTPUT = Place(0), Place(1), Place(2, last=True)


def weight(place: Place | None, *shape: int, density: float = 1.0, name: str = "w", **more: Any) -> Weight:
    keep = np.zeros(math.prod(shape), bool)
    keep[: round(keep.size * density)] = True
    return Weight(name, np.random.default_rng(0).permutation(keep).reshape(shape), place=place, **more)


def tensor(name: str, place: Place | None, *shape: int, density: float = 1.0) -> Tensor:
    keep = weight(place, *shape, density=density).keep
    return Tensor(name, keep, Layout(shape, (), (0,), (1,)), activation="relu", place=place)


def std(scheme: Any, one: Weight, **settings: Any) -> float:
    return float(scheme(one, np.random.default_rng(0), **settings).std())


def test_hidden_variance_is_divided_by_the_ratios_of_width_and_density() -> None:
    wide_and_sparse = weight(HIDDEN, 512, 512, density=0.25)
    assert std(smupar, wide_and_sparse, base_width=128, sigma=0.1) == pytest.approx(0.1 / math.sqrt(4 / 4), rel=0.01)
    assert std(mup, wide_and_sparse, base_width=128, sigma=0.1) == pytest.approx(0.1 / math.sqrt(4), rel=0.01)
    sparse_base = {"base_width": 512, "base_density": 0.5, "sigma": 0.1}
    assert std(smupar, wide_and_sparse, **sparse_base) == pytest.approx(0.1 * math.sqrt(2), rel=0.01)


def test_the_output_weight_has_the_multiplier_in_it_unless_the_model_has_it() -> None:
    last = weight(OUTPUT, 512, 512)
    assert std(mup, last, base_width=128, sigma=0.1) == pytest.approx(0.1 / 4, rel=0.01)
    assert std(mup, last, base_width=128, sigma=0.1, output_multiplier=True) == pytest.approx(0.1, rel=0.01)


def test_input_weights_do_not_depend_on_the_width() -> None:
    first = weight(INPUT, 512, 100)
    assert std(smupar, first, base_width=128, sigma=0.1) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("place", [INPUT, HIDDEN, OUTPUT])
def test_at_the_base_the_network_is_the_standard_one_bit_for_bit(place: Place) -> None:
    one = weight(place, 64, 64)
    standard = 0.02 * np.random.default_rng(3).standard_normal((64, 64), dtype=np.float32)
    for scheme in (mup, smupar):
        np.testing.assert_array_equal(scheme(one, np.random.default_rng(3), base_width=64, sigma=0.02), standard)


@pytest.mark.parametrize("place", [INPUT, HIDDEN, OUTPUT])
def test_at_the_density_of_the_base_smupar_is_mup_bit_for_bit(place: Place) -> None:
    one = weight(place, 128, 128, density=0.25)
    drawn = smupar(one, np.random.default_rng(3), base_width=64, base_density=0.25, sigma=0.02)
    np.testing.assert_array_equal(drawn, mup(one, np.random.default_rng(3), base_width=64, sigma=0.02))


def test_without_sigma_hidden_weights_keep_the_signal_at_any_width_and_density() -> None:
    for width, density in ((64, 1.0), (256, 1.0), (256, 0.25)):
        one = weight(HIDDEN, width, width, density=density, activation="relu")
        assert std(smupar, one, base_width=64) == pytest.approx(math.sqrt(2 / (width * density)), rel=0.02)


def test_a_table_is_left_to_the_model() -> None:
    table = Tensor("embed", np.ones((7, 64), bool), Layout((7, 64), (), (1,), (0,)), ("embedding",), place=INPUT)
    drawn = draw([table], get_initializer("smupar", {"base_width": 64}), seed=0)
    assert drawn.left == {"embed": "'embed' is a table, whose start does not depend on width or density"}


def test_where_a_pass_did_not_show_the_ends_patterns_name_them() -> None:
    ends = {"inputs": ["first.*"], "outputs": "last.weight", "base_width": 64, "sigma": 0.1}
    named = {name: weight(None, 256, 256, name=f"{name}.weight") for name in ("first", "middle", "last")}
    found = {name: std(mup, one, **ends) for name, one in named.items()}
    assert found == pytest.approx({"first": 0.1, "middle": 0.05, "last": 0.025}, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({}, HIDDEN, "smupar needs base_width"),
        ({"base_width": 0}, HIDDEN, "base_width must be a whole number, 1 or more, not 0"),
        ({"base_width": 64, "base_density": 0}, HIDDEN, "base_density must be more than 0"),
        ({"base_width": 64}, HIDDEN, "base_width 64 does not divide the 100 inputs of 'w': use 50"),
        ({"base_width": 64, "width": 100}, HIDDEN, "base_width 64 does not divide the width 100: use 50"),
        ({"base_width": 50}, None, "where 'w' stands in the network was not found"),
    ],
)
def test_what_cannot_be_compared_with_a_base_is_one_line(
    settings: Mapping[str, Any], place: Place | None, said: str
) -> None:
    with pytest.raises(BadValue, match=said) as error:
        smupar(weight(place, 100, 100), np.random.default_rng(0), **settings)
    assert "\n" not in str(error.value)


# Learning rates.

NETWORK = (
    tensor("first.weight", INPUT, 256, 10),
    tensor("middle.weight", HIDDEN, 256, 256, density=0.25),
    tensor("last.weight", OUTPUT, 3, 256),
)
BIASES = {"first.bias": 256, "middle.bias": 256, "last.bias": 3}


@pytest.mark.parametrize(
    ("rule", "optimizer", "settings", "expected"),
    [
        ("mup", "adam", {}, (1, 1 / 4, 1 / 4, 1, 1, 1)),
        ("smupar", "adam", {}, (1, 1, 1 / 4, 1, 1, 1)),
        ("smupar", "adamw", {"output_multiplier": True}, (1, 1, 1, 1, 1, 1)),
        ("smupar", "adam", {"base_density": 0.25}, (1 / 4, 1 / 4, 1 / 16, 1, 1, 1)),
        ("mup", "sgd", {}, (4, 1, 1 / 4, 4, 4, 1)),
        ("smupar", "sgd", {}, (4, 4, 1 / 4, 4, 4, 1)),
        ("mup", "sgd", {"output_multiplier": True}, (4, 1, 4, 4, 4, 1)),
    ],
)
def test_learning_rates_follow_the_table(
    rule: str, optimizer: str, settings: Mapping[str, Any], expected: tuple[float, ...]
) -> None:
    found = learning_rate_factors(rule, NETWORK, optimizer, {"base_width": 64, **settings}, BIASES)
    assert [found[each.name] for each in NETWORK] + [found[name] for name in BIASES] == pytest.approx(list(expected))


def test_a_multiplier_in_the_model_computes_what_one_in_the_weight_does() -> None:
    """w = m w': a step of SGD on w' by η moves w by m² η, one of Adam by m η."""
    for optimizer, power in (("sgd", 2), ("adam", 1)):
        inside, outside = (
            learning_rate_factors("smupar", NETWORK, optimizer, {"base_width": 64, "output_multiplier": multiplied})
            for multiplied in (False, True)
        )
        assert outside["last.weight"] * (64 / 256) ** power == pytest.approx(inside["last.weight"])


def test_rules_and_settings_that_there_are_none_of_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mup'"):
        learning_rate_factors("muP", NETWORK, "adam")
    with pytest.raises(UnknownName, match="unknown setting of mup 'base_density'"):
        learning_rate_factors("mup", NETWORK, "adam", {"base_density": 0.5})
    with pytest.raises(BadValue, match="optimizers sgd, adam, adamw, not for 'lion'"):
        learning_rate_factors("mup", NETWORK, "lion", {"base_width": 64})


# Graphs.


def chain(length: int, *, empty: int | None = None) -> list[Tensor]:
    feeds: list[tuple[str, ...]] = [(), *((f"w{i}",) for i in range(length - 1))]
    places = [Place(i, feeds[i], last=i == length - 1) for i in range(length)]
    return [tensor(f"w{i}", place, 2, 2, density=0.0 if i == empty else 1.0) for i, place in enumerate(places)]


def test_learning_rates_of_a_graph_fall_with_the_paths_through_it() -> None:
    deep = learning_rate_factors("dag", chain(6), "sgd", {"base_paths": 3**3})
    assert deep["w0"] == pytest.approx(0.35355, abs=1e-5)  # depth 3 -> 6: 2^(-1.5)
    two = [*chain(1), tensor("beside", Place(1, last=True), 2, 2)]
    assert learning_rate_factors("dag", two, "sgd")["w0"] == pytest.approx(0.70711, abs=1e-5)
    kernel = Tensor(
        "conv", np.ones((2, 2, 3, 3), bool), Layout((2, 2, 3, 3), (), (0,), (1,)), place=Place(0, last=True)
    )
    assert learning_rate_factors("dag", [kernel], "sgd") == pytest.approx({"conv": 1 / 3})


def test_a_path_that_the_mask_cuts_leaves_the_sum() -> None:
    def beside(density: float) -> list[Tensor]:
        """A chain a, b, and c from the inputs to the same sum."""
        a, b = tensor("a", Place(0), 2, 2), tensor("b", Place(1, ("a",), 2, last=True), 2, 2, density=density)
        return [a, b, tensor("c", Place(2, (), 2, last=True), 2, 2)]

    assert path_lengths(beside(1.0)) == {1: 1, 2: 1}
    assert path_sum(beside(1.0)) == 9
    assert path_lengths(beside(0.0)) == {1: 1}
    with pytest.raises(BadValue, match="no path of weights"):
        path_sum(chain(3, empty=1))


def test_acceptance_7_dag_norms_with_the_in_degree_of_the_target() -> None:
    """Vertices 0→1, {0,1}→2, {0,1,2}→3→4: E‖z‖²/n stays 1 everywhere; the source's in-degree would give 2 and 3."""
    width, seeds = 500, 6
    edges = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (3, 4))
    into = {vertex: [source for source, target in edges if target == vertex] for vertex in range(5)}

    def norms(of_target: bool) -> list[float]:
        found = np.zeros(5)
        for seed in range(seeds):
            by = {edge: edge[1] if of_target else edge[0] for edge in edges}
            tensors = [
                tensor(f"{edge}", Place(i + 1, in_degree=max(1, len(into[by[edge]]))), width, width)
                for i, edge in enumerate(edges)
            ]
            drawn = draw(tensors, get_initializer("dag"), seed).values
            z = [np.random.default_rng(seed).standard_normal(width)]
            for vertex in range(1, 5):
                z.append(np.sum([drawn[f"{(s, vertex)}"] @ np.maximum(z[s], 0) for s in into[vertex]], axis=0))
            found += [float(each @ each) / width / seeds for each in z]
        return found.tolist()

    assert norms(of_target=True) == pytest.approx([1, 1, 1, 1, 1], abs=0.15)
    assert norms(of_target=False) == pytest.approx([1, 1, 2, 3, 1], rel=0.15)


def test_the_output_of_a_graph_is_scaled_by_live_inputs_squared() -> None:
    last = weight(Place(3, last=True), 500, 500, density=0.5)
    drawn = np.asarray(dag(last, np.random.default_rng(0)))
    variances = drawn.var(axis=1) * last.fan_in.astype(float) ** 2
    assert float(variances.mean()) == pytest.approx(2, rel=0.02)


def test_an_edge_that_the_mask_empties_lowers_the_in_degree_where_it_led() -> None:
    def drawn(density: float) -> np.ndarray[Any, Any]:
        meets = [
            tensor(n, Place(i, (), 2), 200, 200, density=d) for i, (n, d) in enumerate({"a": 1, "b": density}.items())
        ]
        return draw([*meets, tensor("c", Place(2, ("a", "b"), last=True), 200, 200)], get_initializer("dag"), 0).values[
            "a"
        ]

    np.testing.assert_allclose(drawn(0.0), drawn(1.0) * math.sqrt(2), rtol=1e-6)


def test_a_graph_that_was_not_followed_is_refused() -> None:
    with pytest.raises(BadValue, match="where 'w' stands in the network was not found"):
        draw([tensor("w", None, 2, 2)], get_initializer("dag"), 0)
