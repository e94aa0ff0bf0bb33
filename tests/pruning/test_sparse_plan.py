"""The plans of sparse matrices and convolutions: what follows from a mask."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry
from pruning.sparse.plans.pattern import convolution_pattern, linear_pattern
from pruning.sparse.plans.plan import Plan
from tests.pruning.sparse_cases import GEOMETRIES, MASKS, dense_convolution

masks = st.integers(1, 6).flatmap(
    lambda rows: st.integers(1, 6).flatmap(
        lambda columns: st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns).map(
            lambda bits: np.array(bits).reshape(rows, columns)
        )
    )
)


@given(masks)
def test_a_plan_holds_its_mask(mask):
    plan = Plan.of(mask)
    assert np.array_equal(plan.mask, mask)
    assert plan.kept == mask.sum() and plan.density == pytest.approx(mask.mean())
    assert plan == Plan.of(mask.astype(float)) and hash(plan) == hash(Plan.of(mask.copy()))
    assert plan.fan_in.tolist() == mask.sum(1).tolist()
    assert plan.live_rows.tolist() == [row for row in range(len(mask)) if mask[row].any()]
    assert plan.live_columns.tolist() == [column for column in range(mask.shape[1]) if mask[:, column].any()]
    assert plan.positions.tolist() == np.flatnonzero(mask).tolist()


@given(masks)
def test_rows_are_those_of_the_mask_and_of_its_transpose(mask):
    plan = Plan.of(mask)
    values = np.arange(1.0, plan.kept + 1)
    dense = np.zeros(mask.shape)
    dense[mask] = values
    for rows, ordered, matrix in (
        (plan.rows, values, dense),
        (plan.transposed, values[plan.to_transposed], dense.T),
    ):
        for row in range(len(matrix)):
            first, last = rows.starts[row : row + 2]
            assert matrix[row, rows.columns[first:last]].tolist() == ordered[first:last].tolist()
            assert np.count_nonzero(matrix[row]) == last - first


def test_plans_of_other_masks_differ():
    mask = MASKS["some"]
    assert Plan.of(mask) != Plan.of(~mask) and Plan.of(np.ones((2, 8))) != Plan.of(np.ones((4, 4)))


def test_copies_share_a_plan_and_a_pickle_holds_the_mask_alone():
    plan = Plan.of(MASKS["some"])
    linear_pattern(plan, torch.device("cpu"))
    assert copy.deepcopy(plan) is plan
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan and not again.made


@pytest.mark.parametrize(("shape", "geometry"), GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_a_convolution_is_the_matrix_of_its_taps(shape, geometry):
    generator = torch.Generator().manual_seed(0)
    keep = np.random.default_rng(0).random(shape) < 0.4
    plan = ConvPlan.of(keep, geometry)
    images = torch.randn(2, plan.inputs, 7, 8, generator=generator, dtype=torch.float64)
    values = torch.randn(plan.weights.kept, generator=generator, dtype=torch.float64)
    both, source = convolution_pattern(plan, (7, 8), torch.device("cpu"))
    for pattern, entries in ((both.forward, values[source]), (both.backward, values[source][both.order])):
        matrix = torch.zeros(pattern.shape, dtype=torch.float64)
        rows = torch.repeat_interleave(torch.arange(pattern.shape[0]), pattern.starts.diff().long())
        matrix[rows, pattern.columns.long()] = entries
        matrix = matrix if pattern is both.forward else matrix.t()
        found = (matrix @ images.reshape(2, -1).t()).t().reshape(2, plan.outputs, *geometry.output((7, 8)))
        assert torch.allclose(found, dense_convolution(values, images, plan), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mask", "message"), [(np.ones(3), "a matrix"), (np.full((2, 2), 0.5), "0 and 1 only")])
def test_what_is_no_mask_is_one_line(mask, message):
    with pytest.raises(BadValue, match=message):
        Plan.of(mask)


def test_what_is_no_convolution_is_one_line():
    with pytest.raises(BadValue, match=r"not \[4, 1, 3, 3\]"):
        ConvPlan.of(np.ones((4, 1, 3, 3), bool), Geometry((3, 3), groups=3))
    with pytest.raises(BadValue, match=r"spans \(3, 3\) does not fit into an input of \(2, 5\)"):
        Geometry((3, 3)).output((2, 5))
