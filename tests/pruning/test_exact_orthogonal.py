"""Exact orthogonal initialization: isometric to rounding, exactly as dense as asked, connected where asked."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pruning.errors import BadValue, UnknownName
from pruning.initializers import LeftAlone, draw, generator, get_initializer
from pruning.initializers.exact_orthogonal import exact_orthogonal
from pruning.starts.choosing.kernels import at_centre, centre_count, filled_up, kept_for_centre
from pruning.starts.choosing.rotations import Columns, expected_densities, fewest, random_turns, sparse_orthogonal
from pruning.starts.tensor import Layout, Tensor
from pruning.starts.weight import Kind, Weight

ROUNDING = 1e-12


def weight(*shape, kept, activation: str | None = "linear", kind: Kind = "linear"):
    keep = np.zeros(math.prod(shape), bool)
    keep[:kept] = True
    return Weight("w", keep.reshape(shape), kind, activation=activation)


def drawn(of, seed=0, **settings):
    return exact_orthogonal(of, np.random.default_rng(seed), **settings)


def off_isometry(matrix):
    """The largest entry of |AAᵀ − I| on the shorter side."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return abs(short @ short.T - np.eye(len(short))).max()


def blocks(live):
    """Into how many blocks that share no row and no column a matrix can be ordered."""
    rows, columns = live.shape
    graph = np.zeros((rows + columns, rows + columns), bool)
    graph[:rows, rows:] = live
    return connected_components(csr_array(graph), directed=False)[0]


@given(st.integers(1, 24), st.integers(1, 24), st.booleans(), st.integers(0, 9), st.data())
def test_any_count_that_an_orthogonal_matrix_has_is_met_exactly(rows, columns, irreducible, seed, data):
    kept = data.draw(st.integers(fewest(rows, columns, irreducible), rows * columns))
    made = drawn(weight(rows, columns, kept=kept), seed, irreducible=irreducible)
    assert made.keep.sum() == kept
    assert not made.values[~made.keep].any()
    assert made.values.dtype == np.float64 and off_isometry(made.values) < ROUNDING
    if irreducible:
        assert blocks(made.values != 0) == 1


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
def test_the_sparsest_irreducible_matrix_has_as_many_entries_as_is_said(rows, columns, seed):
    least = fewest(rows, columns, irreducible=True)
    values, live = sparse_orthogonal(rows, columns, least, np.random.default_rng(seed), irreducible=True)
    assert live.sum() == least and blocks(live) == 1
    assert (live == (values != 0)).all() and off_isometry(values) < ROUNDING


@pytest.mark.parametrize(("size", "entries"), [(6, 20), (100, 396)])
def test_the_4n_minus_4_brick(size, entries):
    values, live = sparse_orthogonal(size, size, entries, np.random.default_rng(0), irreducible=True)
    assert live.sum() == entries == fewest(size, size, irreducible=True)
    assert off_isometry(values) < ROUNDING


@pytest.mark.parametrize(("rows", "columns"), [(100, 100), (30, 100), (100, 30)])
@pytest.mark.parametrize("density", [0.01, 0.05, 0.1, 0.2, 0.5, 0.99, 1.0])
def test_the_product_of_rotations_falls_short_by_less_than_one_rotation_adds(rows, columns, density):
    kept = round(density * rows * columns)
    made = drawn(weight(rows, columns, kept=kept))
    assert off_isometry(made.values) < ROUNDING
    # Each row that has one of two entries gets one more.
    assert 0 <= kept - (made.values != 0).sum() <= min(rows, columns)


def test_the_expected_density_chain():
    densities = expected_densities(100, 600)
    first = [int(np.argmax(densities >= density)) for density in (0.05, 0.10, 0.14, 0.20, 0.50, 0.99)]
    assert first == [84, 123, 144, 168, 252, 542]
    assert densities[156] == pytest.approx(0.1689, abs=5e-5)
    assert densities[249] == pytest.approx(0.4915, abs=5e-5)


@pytest.mark.parametrize("rotations", [156, 249])
def test_random_rotations_are_as_dense_as_the_chain_says(rotations):
    rng, measured = np.random.default_rng(0), []
    for _ in range(100):
        made = Columns.partial_permutation(100, 100, rng)
        for turn in itertools.islice(random_turns(100, rng), rotations):
            made.turn(*turn)
        measured.append(made.count / 100**2)
    # One matrix has a standard deviation of .015 (156 rotations) to .024 (249); the mean of 100, a tenth of that.
    assert np.mean(measured) == pytest.approx(expected_densities(100, rotations)[-1], abs=0.006)


@given(st.integers(2, 8), st.integers(0, 9))
def test_what_a_rotation_adds_is_known_before(size, seed):
    rng = np.random.default_rng(seed)
    made = Columns.partial_permutation(size, size, rng)
    for one, other, angle in itertools.islice(random_turns(size, rng), 12):
        assert one != other
        before, more = made.count, made.added(one, other)
        made.turn(one, other, angle)
        assert made.count == before + more
        assert (made.live == (made.values != 0)).all()


@pytest.mark.parametrize("gain", [1.0, 1.1])
def test_all_singular_values_of_a_deep_linear_networks_jacobian_are_the_gain_to_the_depth(gain):
    jacobian = np.eye(64)
    for layer in range(20):
        jacobian = drawn(weight(64, 64, kept=410), layer, gain=gain).values @ jacobian
    assert abs(np.linalg.svd(jacobian, compute_uv=False) / gain**20 - 1).max() < ROUNDING


def test_the_gain_is_that_of_the_activation_unless_it_is_given():
    for settings, expected in [({}, math.sqrt(2)), ({"activation": "linear"}, 1.0), ({"gain": 0.5}, 0.5)]:
        made = drawn(weight(20, 20, kept=100, activation="relu"), **settings)
        assert np.linalg.svd(made.values, compute_uv=False) == pytest.approx(np.full(20, expected), abs=ROUNDING)


def test_at_density_1_it_is_orthogonal():
    made = drawn(weight(12, 12, kept=144))
    assert made.keep.all() and (made.values != 0).all() and off_isometry(made.values) < ROUNDING


def test_rows_and_columns_are_alike_in_the_mean():
    # An identity with zeros at its side would leave the last inputs out, whenever there are few weights.
    mean = np.mean([drawn(weight(4, 8, kept=6), seed).keep for seed in range(2000)], axis=0)
    assert abs(mean - 6 / 32).max() < 0.05


@pytest.mark.parametrize("shape", [(8, 8, 3, 3), (12, 8, 3, 3), (8, 12, 5), (6, 6, 1, 3, 3)], ids=str)
@pytest.mark.parametrize("centre", ["denser", "even"])
def test_a_kernel_is_orthogonal_at_its_centre_and_trained_all_over(shape, centre):
    total = math.prod(shape)
    of = weight(*shape, kept=total // 3, kind="convolution")
    made = drawn(of, centre=centre)
    middle = (slice(None), slice(None), *(size // 2 for size in shape[2:]))
    assert made.keep.sum() == total // 3
    assert off_isometry(made.values[middle]) < ROUNDING
    around = made.values.copy()
    around[middle] = 0
    assert not around.any()
    assert made.keep.sum() > made.keep[middle].sum()
    assert 0 <= centre_count(of, centre) - (made.values != 0).sum() <= min(shape[:2])


def test_a_delta_convolution_keeps_the_norm_of_any_input():
    torch = pytest.importorskip("torch")
    made = drawn(weight(12, 8, 3, 3, kept=300, kind="convolution"))
    inputs = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 8, 7, 7)))
    outputs = torch.nn.functional.conv2d(inputs, torch.from_numpy(made.values), padding=1)
    assert abs(outputs.norm() / inputs.norm() - 1) < ROUNDING


@pytest.mark.parametrize(
    ("kept", "even", "denser"), [(576, 64, 64), (144, 16, 32), (36, 4, 16), (18, 2, 11), (1, 0, 1)]
)
def test_the_centre_of_a_kernel_has_density_d_or_the_smaller_of_dk2_and_root_d(kept, even, denser):
    of = weight(8, 8, 3, 3, kept=kept, kind="convolution")
    assert (centre_count(of, "even"), centre_count(of, "denser")) == (even, denser)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["even", "denser"]), st.integers(1, 36))
def test_the_number_that_a_message_names_is_the_smallest_that_works(outputs, inputs, centre, needed):
    needed = min(needed, outputs * inputs)
    enough = kept_for_centre(weight(outputs, inputs, 3, 3, kept=0), needed, centre)
    assert centre_count(weight(outputs, inputs, 3, 3, kept=enough), centre) >= needed
    assert centre_count(weight(outputs, inputs, 3, 3, kept=enough - 1), centre) < needed


def test_a_kernel_of_one_tap_is_a_matrix():
    matrix, kernel = drawn(weight(8, 8, kept=20)), drawn(weight(8, 8, 1, 1, kept=20, kind="convolution"))
    assert (matrix.values == kernel.values[:, :, 0, 0]).all() and (matrix.keep == kernel.keep[:, :, 0, 0]).all()
    assert at_centre(weight(8, 8, kept=20), matrix.values, "mine") is matrix.values


def test_filling_up_adds_and_never_removes():
    keep = np.random.default_rng(0).random((6, 7)) < 0.3
    for count in (int(keep.sum()), 30, 42):
        filled = filled_up(keep, count, np.random.default_rng(1))
        assert filled.sum() == count and filled[keep].all()


@pytest.mark.parametrize(
    ("of", "settings", "message"),
    [
        (
            weight(100, 100, kept=99),
            {},
            "99 of 10,000 entries: an orthogonal matrix of 100×100 needs 100; keep 100 or ",
        ),
        (weight(100, 100, kept=395), {"irreducible": True}, "irreducible orthogonal .* needs 396; keep 396 .* 0.0396"),
        (weight(8, 8, 3, 3, kept=50), {"centre": "even"}, "needs 8 at the centre; keep 68 or more, a density of 0.118"),
        (weight(10, 10, kept=0), {}, "0 of 100 entries"),
        (weight(8, 8, 2, 2, kept=100), {}, "2 × 2"),
        (weight(8, 8, kept=60, activation=None), {}, "name it, as --set init_params.activation=relu"),
    ],
    ids=["below 1/n", "below (4n-4)/n^2", "centre", "nothing", "even kernel", "no activation"],
)
def test_what_cannot_be_drawn_is_an_error_of_one_line_with_what_would_work(of, settings, message):
    with pytest.raises(BadValue, match=message) as error:
        drawn(of, **settings)
    assert "\n" not in str(error.value)


def test_the_counts_that_messages_name_work():
    drawn(weight(8, 8, 3, 3, kept=68), centre="even")
    drawn(weight(100, 100, kept=396), irreducible=True)


def test_another_word_for_the_centre_is_an_error():
    with pytest.raises(UnknownName, match="did you mean 'denser'"):
        drawn(weight(8, 8, 3, 3, kept=300), centre="dense")


def test_an_embedding_is_left_alone():
    with pytest.raises(LeftAlone):
        drawn(weight(8, 8, kept=20, kind="embedding"))


def test_each_gate_and_group_is_orthogonal_by_itself():
    keep = np.zeros((4, 16, 16), bool)
    keep.reshape(4, -1)[:, :64] = True
    tensor = Tensor("lstm", keep.reshape(64, 16), Layout((4, 16, 16), (0,), (1,), (2,)), ("recurrent",), "gate")
    made = draw([tensor], get_initializer("exact-orthogonal"), seed=0)
    gates, kept = made.values["lstm"].reshape(4, 16, 16), made.keep["lstm"].reshape(4, 16, 16)
    assert [int(gate.sum()) for gate in kept] == [64] * 4
    assert max(map(off_isometry, gates)) < ROUNDING
    assert made.at_zero["lstm"] == int((made.keep["lstm"] & (made.values["lstm"] == 0)).sum())


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    of = weight(30, 20, kept=100)
    first, again, other = (exact_orthogonal(of, generator(seed, "w")) for seed in (0, 0, 1))
    assert (first.values == again.values).all() and (first.keep == again.keep).all()
    assert (first.keep != other.keep).any()


def test_4096_by_4096_at_5_percent_takes_rotations_in_proportion_to_n_log_n():
    # The number of rotations says how long it takes, and does not depend on the machine: about (n / 2) · ln(d·n).
    for size in (100, 400):
        rotations = int(np.argmax(expected_densities(size, 20 * size) >= 0.05))
        assert rotations == pytest.approx(size / 2 * math.log(0.05 * size / 0.95), rel=0.02)
