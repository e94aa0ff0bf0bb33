"""Sparsity-aware orthogonal initialization: blocks of orthonormal rows, and a mirror that a ReLU does not see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue, UnknownName
from pruning.initializers import LeftAlone
from pruning.initializers.sao import sao
from pruning.starts.haar import haar
from pruning.starts.weight import Kind, Place, Weight

ROUNDING = 1e-12


def weight(*shape, kept, activation: str | None = "linear", kind: Kind = "linear", place: Place | None = None):
    keep = np.zeros(math.prod(shape), bool)
    keep[:kept] = True
    return Weight("w", keep.reshape(shape), kind, activation=activation, place=place)


def drawn(of, seed=0, **settings):
    return sao(of, np.random.default_rng(seed), **settings)


def off_isometry(matrix):
    """The largest entry of |AAᵀ − I| on the shorter side."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return abs(short @ short.T - np.eye(len(short))).max()


def relu(values):
    return np.maximum(values, 0)


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 9), st.data())
def test_any_count_from_the_sparsest_on_is_met_exactly(rows, columns, seed, data):
    kept = data.draw(st.integers(max(rows, columns), rows * columns))
    made = drawn(weight(rows, columns, kept=kept), seed)
    assert made.keep.sum() == kept
    assert not made.values[~made.keep].any()
    assert made.values.dtype == np.float64 and off_isometry(made.values) < ROUNDING


@given(st.integers(1, 10), st.integers(1, 10), st.sampled_from(["both", "outputs", "inputs"]), st.data())
def test_any_count_is_met_exactly_where_the_matrix_is_mirrored(half_rows, half_columns, mirror, data):
    rows = half_rows * (1 if mirror == "inputs" else 2)
    columns = half_columns * (1 if mirror == "outputs" else 2)
    copies = (rows // half_rows) * (columns // half_columns)
    kept = data.draw(st.integers(copies * max(half_rows, half_columns), rows * columns))
    made = drawn(weight(rows, columns, kept=kept), mirror=mirror)
    assert made.keep.sum() == kept
    assert not made.values[~made.keep].any()


def test_units_with_the_same_inputs_share_one_orthonormal_block():
    made = drawn(weight(12, 12, kept=36))
    live = made.values != 0
    assert (live.sum(axis=0) == 3).all() and (live.sum(axis=1) == 3).all()
    assert (live == made.keep).all()
    for row in live:
        sharing = (live == row).all(axis=1)
        block = made.values[sharing][:, row]
        assert block.shape == (3, 3) and off_isometry(block) < ROUNDING


def test_entries_that_blocks_leave_over_start_at_0_and_are_trained():
    # Four blocks of 3 × 3 have 36 entries, one too many; two of 3 × 3 and three of 2 × 2 have 30.
    made = drawn(weight(12, 12, kept=35))
    assert made.keep.sum() == 35
    assert (made.values != 0).sum() == 2 * 9 + 3 * 4


def test_at_density_1_it_is_the_dense_orthogonal_start():
    made = drawn(weight(9, 7, kept=63))
    assert made.keep.all() and (made.values != 0).all() and off_isometry(made.values) < ROUNDING


@pytest.mark.parametrize("gain", [1.0, 1.1])
def test_all_singular_values_of_a_deep_linear_networks_jacobian_are_the_gain_to_the_depth(gain):
    jacobian = np.eye(60)
    for layer in range(20):
        jacobian = drawn(weight(60, 60, kept=360), layer, gain=gain).values @ jacobian
    assert abs(np.linalg.svd(jacobian, compute_uv=False) / gain**20 - 1).max() < ROUNDING


def test_mirrored_it_makes_a_relu_network_exactly_linear_and_norm_preserving():
    rng = np.random.default_rng(0)
    signal, state = (u := rng.standard_normal(50)), np.concatenate([u, -u])
    for layer in range(5):
        made = drawn(weight(100, 100, kept=1000, activation="relu"), layer)
        signal, state = made.values[:50, :50] @ signal, made.values @ relu(state)
    assert abs(state - np.concatenate([signal, -signal])).max() < 5e-15
    assert np.linalg.norm(relu(state)) == pytest.approx(np.linalg.norm(u), abs=5e-15)


def test_breaking_the_mirror_breaks_it():
    rng = np.random.default_rng(0)
    made = drawn(weight(100, 100, kept=1000, activation="relu"))
    u = rng.standard_normal(50)
    state = np.concatenate([u, -u])
    broken = made.values.copy()
    broken[:50, 50:] = 0  # a mask without the mirror image of A that the first half of the units reads
    for matrix, mirrored in ((made.values, True), (broken, False)):
        result = matrix @ relu(state)
        assert bool(abs(result[:50] + result[50:]).max() < ROUNDING) is mirrored
        assert bool(abs(np.linalg.norm(relu(result)) - np.linalg.norm(u)) < ROUNDING) is mirrored


def test_first_hidden_and_last_layer_make_a_relu_network_linear_in_its_inputs():
    first = drawn(weight(40, 20, kept=200, activation="relu", place=Place(0)))
    hidden = drawn(weight(40, 40, kept=200, activation="relu", place=Place(1)))
    last = drawn(weight(20, 40, kept=200), mirror="inputs")
    inputs = np.random.default_rng(1).standard_normal((20, 3))
    outputs = last.values @ relu(hidden.values @ relu(first.values @ inputs))
    linear = last.values[:, :20] @ hidden.values[:20, :20] @ first.values[:20]
    assert abs(outputs - linear @ inputs).max() < 5e-15
    assert off_isometry(linear) < ROUNDING


def test_a_mirrored_mask_is_mirrored_but_for_three_entries():
    for kept in (400, 401, 402, 403):
        keep = drawn(weight(40, 40, kept=kept, activation="relu")).keep
        parts = [keep[:20, :20], keep[:20, 20:], keep[20:, :20], keep[20:, 20:]]
        everywhere = np.logical_and.reduce(parts)
        assert keep.sum() - 4 * everywhere.sum() <= 3 * 3
        assert kept % 4 or all((part == everywhere).all() for part in parts)


def test_a_mirrored_layer_has_gain_1_and_another_that_of_its_activation():
    scale = {
        ("relu", None): 1.0,
        ("relu", "none"): math.sqrt(2),
        ("linear", None): 1.0,
        ("linear", "both"): 1.0,
    }
    for (activation, mirror), expected in scale.items():
        made = drawn(weight(8, 8, kept=32, activation=activation), mirror=mirror).values
        half = made[:4, :4] if mirror == "both" or (activation, mirror) == ("relu", None) else made
        assert np.linalg.svd(half, compute_uv=False) == pytest.approx(np.full(len(half), expected), abs=ROUNDING)


def test_a_degree_is_the_most_inputs_of_a_unit():
    made = drawn(weight(12, 12, kept=100), degree=4)
    assert ((made.values != 0).sum(axis=1) == 4).all() and made.keep.sum() == 100


@pytest.mark.parametrize("mirror", ["none", "both"])
def test_a_kernel_has_its_blocks_at_the_centre(mirror):
    made = drawn(weight(8, 8, 3, 3, kept=200, activation="relu", kind="convolution"), mirror=mirror)
    assert made.keep.sum() == 200
    around = made.values.copy()
    around[:, :, 1, 1] = 0
    assert not around.any()
    half = 4 if mirror == "both" else 8
    block = made.values[:half, :half, 1, 1] / (1 if mirror == "both" else math.sqrt(2))
    assert off_isometry(block) < ROUNDING


@pytest.mark.parametrize(
    ("of", "settings", "message"),
    [
        (weight(9, 8, kept=60, activation="relu"), {}, "the outputs of 'w', and 9 is odd: .*mirror=none"),
        (weight(8, 9, kept=60, activation="relu"), {}, "the inputs of 'w', and 9 is odd"),
        (weight(10, 100, kept=99), {}, "99 of 1,000 entries: keep 100 or more, a density of 0.1; .*exact-orthogonal"),
        (weight(10, 100, kept=199, activation="relu"), {}, "keep 200 or more, a density of 0.2"),
        (weight(12, 12, kept=30), {"degree": 3}, "keep 36 or more, a density of 0.25, or give a smaller degree"),
        (weight(12, 12, kept=30), {"degree": 13}, "degree of init 'sao' must be 1 to 12 for 'w', not 13"),
        (weight(8, 8, 2, 2, kept=100), {}, "2 × 2"),
        (weight(8, 8, kept=60, activation=None), {}, "name it, as --set init_params.activation=relu"),
    ],
    ids=[
        "odd outputs",
        "odd inputs",
        "few",
        "few mirrored",
        "few for degree",
        "degree",
        "even kernel",
        "no activation",
    ],
)
def test_what_cannot_be_drawn_is_an_error_of_one_line_with_what_would_work(of, settings, message):
    with pytest.raises(BadValue, match=message) as error:
        drawn(of, **settings)
    assert "\n" not in str(error.value)


def test_another_word_for_the_mirror_is_an_error():
    with pytest.raises(UnknownName, match="did you mean 'outputs'"):
        drawn(weight(8, 8, kept=60), mirror="output")


def test_an_embedding_is_left_alone():
    with pytest.raises(LeftAlone):
        drawn(weight(8, 8, kept=20, kind="embedding"))


def test_blocks_are_uniform_among_orthonormal_ones():
    # The first entry of a uniform orthogonal n × n matrix has mean 0 and mean square 1 / n.
    rng = np.random.default_rng(0)
    corner = np.array([haar(rng, 3, 3)[0, 0] for _ in range(4000)])
    assert abs(corner.mean()) < 0.03 and np.mean(corner**2) == pytest.approx(1 / 3, abs=0.02)
