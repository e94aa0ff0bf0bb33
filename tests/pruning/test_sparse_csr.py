"""The plan of a sparse matrix, and compressed rows on the CPU, against masked dense products in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue
from pruning.sparse.csr import csr_linear
from pruning.sparse.plan import Plan

MASKS = {
    "some": np.random.default_rng(0).random((6, 7)) < 0.3,
    "all": np.ones((3, 4), bool),
    "none": np.zeros((3, 4), bool),
    "one": np.eye(1, 12, 5, dtype=bool).reshape(3, 4),
    "an empty row and column": np.array([[1, 0, 1], [0, 0, 0], [1, 0, 0]], bool),
    "one output": np.array([[1, 0, 1, 1]], bool),
    "one input": np.array([[1], [0], [1]], bool),
}
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


def problem(mask, batch, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(int(mask.sum()), generator=generator, dtype=torch.float64)
    inputs = torch.randn(mask.shape[1], batch, generator=generator, dtype=torch.float64)
    return values.to(dtype).requires_grad_(), inputs.to(dtype).requires_grad_()


def dense_product(values, inputs, mask):
    weights = torch.zeros(mask.shape, dtype=torch.float64)
    weights[torch.from_numpy(mask)] = values.double()
    return weights @ inputs.double()


@pytest.mark.parametrize("batch", [1, 5, 33])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_products_and_gradients_are_those_of_the_masked_matrix(mask, batch):
    values, inputs = problem(mask, batch)
    gradient = torch.randn(len(mask), batch, generator=torch.Generator().manual_seed(1))
    outputs = csr_linear(values, inputs, Plan.of(mask))
    outputs.backward(gradient)
    reference = values.detach().clone().requires_grad_(), inputs.detach().clone().requires_grad_()
    expected = dense_product(reference[0], reference[1], mask)
    expected.backward(gradient.double())
    for found, wanted in ((outputs, expected), (values.grad, reference[0].grad), (inputs.grad, reference[1].grad)):
        assert found is not None and wanted is not None
        assert found.shape == wanted.shape
        scale = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
        assert torch.allclose(found.double(), wanted.double(), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_gradients_in_float64(mask):
    values, inputs = problem(mask, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda v, x: csr_linear(v, x, Plan.of(mask)), (values, inputs))


@pytest.mark.parametrize("wanted", ["values", "inputs"])
def test_a_gradient_to_one_side_only(wanted):
    values, inputs = problem(MASKS["some"], 4)
    other = inputs if wanted == "values" else values
    other.requires_grad_(False)
    csr_linear(values, inputs, Plan.of(MASKS["some"])).sum().backward()
    assert other.grad is None
    assert (values if wanted == "values" else inputs).grad is not None


def test_inputs_need_not_be_contiguous():
    values, inputs = problem(MASKS["some"], 4)
    plan = Plan.of(MASKS["some"])
    turned = inputs.detach().t().contiguous().t()
    assert not turned.is_contiguous()
    assert torch.equal(csr_linear(values, turned, plan), csr_linear(values, inputs, plan))


def test_infinities_in_a_feature_that_no_weight_reads_have_no_effect():
    mask = MASKS["an empty row and column"]
    values, inputs = problem(mask, 2)
    hostile = inputs.detach().clone()
    hostile[1] = torch.inf
    assert torch.equal(csr_linear(values, hostile, Plan.of(mask)), csr_linear(values, inputs, Plan.of(mask)))


def test_training_is_masked_dense_training_step_by_step_for_a_survivor_at_0_too():
    mask = MASKS["some"]
    plan, (start, data) = Plan.of(mask), problem(mask, 16, torch.float64)
    start = start.detach().clone()
    start[0] = 0.0
    target = torch.randn(len(mask), 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values, dense = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizers = [torch.optim.SGD([p], lr=0.05, momentum=0.9, weight_decay=0.01) for p in (values, dense)]
    for _ in range(8):
        products = csr_linear(values, data.detach(), plan), dense_product(dense, data.detach(), mask)
        for optimizer, product in zip(optimizers, products, strict=True):
            optimizer.zero_grad()
            ((product - target) ** 2).mean().backward()
            optimizer.step()
        assert torch.allclose(values, dense, rtol=1e-12, atol=1e-12)
    assert values[0] != 0


@pytest.mark.parametrize(
    ("values", "inputs", "message"),
    [
        (torch.ones(3), torch.ones(4, 1), r"takes values \[2\] and inputs \[4, B\], not \[3\] and \[4, 1\]"),
        (torch.ones(2), torch.ones(1, 4), r"not \[2\] and \[1, 4\]"),
        (torch.ones(2), torch.ones(4), r"not \[2\] and \[4\]"),
        (torch.ones(2).half(), torch.ones(4, 1).half(), "float32 or float64 alike, not torch.float16"),
        (torch.ones(2), torch.ones(4, 1).double(), "not torch.float32 and torch.float64"),
    ],
)
def test_what_cannot_be_multiplied_is_one_line(values, inputs, message):
    with pytest.raises(BadValue, match=message):
        csr_linear(values, inputs, Plan.of([[1, 0, 0, 1]]))


@pytest.mark.parametrize(("mask", "message"), [(np.ones(3), "a matrix"), (np.full((2, 2), 0.5), "0 and 1 only")])
def test_what_is_no_mask_is_one_line(mask, message):
    with pytest.raises(BadValue, match=message):
        Plan.of(mask)
