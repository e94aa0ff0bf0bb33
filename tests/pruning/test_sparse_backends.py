"""Every backend of a sparse product or convolution on the CPU, against masked dense products in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.errors import BadValue
from pruning.sparse.backends import BACKENDS
from pruning.sparse.convolutions import CONVOLUTIONS
from pruning.sparse.native.compiling import Missing
from pruning.sparse.native.threads import Compiled
from pruning.sparse.plans.by_rows import by_rows
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry
from pruning.sparse.plans.cost import machine
from pruning.sparse.plans.pattern import linear_pattern
from pruning.sparse.plans.plan import Plan
from tests.pruning.sparse_cases import GEOMETRIES, MASKS, dense_convolution, dense_product, needs_compiler, problem

CPU = torch.device("cpu")
ERROR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


def products(dtype):
    return {entry.name: entry.value.product for entry in BACKENDS if entry.value.runs(CPU, dtype)}


def convolutions(dtype):
    return {entry.name: entry.value.product for entry in CONVOLUTIONS if entry.value.runs(CPU, dtype)}


def close(found, wanted, dtype):
    assert found is not None and wanted is not None and found.shape == wanted.shape
    scale = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
    return torch.allclose(found.double(), wanted.double(), rtol=0, atol=ERROR[dtype] * scale)


def test_the_backends_of_a_cpu():
    # Of those that are named here; another one may run where it likes.
    ours = {"bags", "compact", "csr", "dense", "gather", "panels-16", "panels-32", "panels-64"}
    assert ours <= set(BACKENDS.names())
    assert ours & set(products(torch.float32)) == {"bags", "compact", "csr", "dense"}
    assert ours & set(products(torch.float64)) == {"compact", "csr", "dense"}
    assert set(convolutions(torch.float32)) - {"compiled"} == {"bags", "dense"}


@needs_compiler
@pytest.mark.parametrize("batch", [5, 64, 129, 300])
def test_the_bits_of_compiled_products_depend_neither_on_threads_nor_on_the_layout(batch, monkeypatch):
    mask = np.random.default_rng(0).random((70, 90)) < 0.2
    values, inputs = problem(mask, batch)
    gradient = torch.randn(len(mask), batch, generator=torch.Generator().manual_seed(1))

    def run(threads: int, turned: bool) -> list[torch.Tensor]:
        monkeypatch.setattr(Compiled, "threads", lambda self, operations: threads)
        x = (inputs.detach().t().contiguous().t() if turned else inputs.detach()).requires_grad_()
        outputs = BACKENDS["compiled"].value.product(values, x, Plan.of(mask))
        assert outputs.stride() == ((1, len(mask)) if turned else (batch, 1))
        return [outputs, *torch.autograd.grad(outputs, (values, x), gradient)]

    expected = run(1, turned=False)
    for threads in (1, 2, 3, 7):
        for turned in (False, True):
            assert all(map(torch.equal, run(threads, turned), expected))


@needs_compiler
def test_the_bits_of_compiled_convolutions_depend_neither_on_threads_nor_on_the_layout(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    plan = ConvPlan.of(np.random.default_rng(0).random((40, 5, 3, 3)) < 0.2, Geometry((3, 3), padding=((1, 1), (0, 2))))
    values = torch.randn(plan.weights.kept, generator=generator).requires_grad_()
    images = torch.randn(19, 5, 6, 9, generator=generator)
    gradient = torch.randn(19, 40, 6, 9, generator=generator)

    def run(threads: int, layout: torch.memory_format) -> list[torch.Tensor]:
        monkeypatch.setattr(Compiled, "threads", lambda self, operations: threads)
        x = images.contiguous(memory_format=layout).requires_grad_()
        outputs = CONVOLUTIONS["compiled"].value.product(values, x, plan)
        assert outputs.is_contiguous(memory_format=layout)
        return [outputs, *torch.autograd.grad(outputs, (values, x), gradient)]

    expected = run(1, torch.contiguous_format)
    for threads in (1, 2, 3, 7):
        for layout in (torch.contiguous_format, torch.channels_last):
            assert all(map(torch.equal, run(threads, layout), expected))


@pytest.mark.parametrize("shape", [(5, 5000), (5000, 5)])
@pytest.mark.parametrize("name", products(torch.float32))
def test_more_features_than_fit_into_the_cache(name, shape):
    mask = np.random.default_rng(0).random(shape) < 0.2
    values, inputs = problem(mask, 150)
    gradient = torch.randn(len(mask), 150, generator=torch.Generator().manual_seed(1))
    outputs = products(torch.float32)[name](values, inputs, Plan.of(mask))
    reference = values.detach().double().requires_grad_(), inputs.detach().double().requires_grad_()
    expected = dense_product(reference[0], reference[1], mask)
    found = outputs, *torch.autograd.grad(outputs, (values, inputs), gradient)
    wanted = expected, *torch.autograd.grad(expected, reference, gradient.double())
    assert all(close(one, other, torch.float32) for one, other in zip(found, wanted, strict=True))


@needs_compiler
def test_without_a_compiler_there_are_no_compiled_products(monkeypatch):
    assert BACKENDS["compiled"].value.runs(CPU, torch.float32)
    assert not BACKENDS["compiled"].value.runs(CPU, torch.float64)
    monkeypatch.setattr("pruning.sparse.backends.compiled.products", lambda: Missing("there is no C compiler"))
    assert "compiled" not in products(torch.float32)


@pytest.mark.parametrize("batch", [0, 1, 5, 33])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for dtype in ERROR for name in products(dtype)], ids=lambda v: str(v)
)
def test_products_and_gradients_are_those_of_the_masked_matrix(name, dtype, mask, batch):
    values, inputs = problem(mask, batch, dtype)
    gradient = torch.randn(len(mask), batch, generator=torch.Generator().manual_seed(1)).to(dtype)
    outputs = products(dtype)[name](values, inputs, Plan.of(mask))
    outputs.backward(gradient)
    reference = values.detach().double().requires_grad_(), inputs.detach().double().requires_grad_()
    expected = dense_product(reference[0], reference[1], mask)
    expected.backward(gradient.double())
    for found, wanted in ((outputs, expected), (values.grad, reference[0].grad), (inputs.grad, reference[1].grad)):
        assert close(found, wanted, dtype)
    assert outputs.dtype == dtype and values.grad is not None and values.grad.dtype == dtype


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("name", products(torch.float64))
def test_gradients_in_float64(name, mask, batch):
    if mask.size > 100:
        mask = mask[:9, :11]
    values, inputs = problem(mask, batch, torch.float64)
    run = products(torch.float64)[name]
    assert torch.autograd.gradcheck(lambda v, x: run(v, x, Plan.of(mask)), (values, inputs))


@pytest.mark.parametrize("wanted", ["values", "inputs"])
@pytest.mark.parametrize("name", products(torch.float32))
def test_a_gradient_to_one_side_only(name, wanted):
    values, inputs = problem(MASKS["some"], 4)
    other = inputs if wanted == "values" else values
    other.requires_grad_(False)
    products(torch.float32)[name](values, inputs, Plan.of(MASKS["some"])).sum().backward()
    assert other.grad is None
    assert (values if wanted == "values" else inputs).grad is not None


@pytest.mark.parametrize("name", products(torch.float32))
def test_inputs_may_lie_batch_by_batch(name):
    values, inputs = problem(MASKS["large"], 150)
    plan, run = Plan.of(MASKS["large"]), products(torch.float32)[name]
    turned = inputs.detach().t().contiguous().t()
    assert not turned.is_contiguous()
    assert torch.allclose(run(values, turned, plan), run(values, inputs, plan), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in products(torch.float32) if name != "dense"])
def test_infinities_in_a_feature_that_no_weight_reads_have_no_effect(name):
    mask = MASKS["an empty row and column"]
    values, inputs = problem(mask, 2)
    hostile = inputs.detach().clone()
    hostile[1] = torch.inf
    run = products(torch.float32)[name]
    assert torch.equal(run(values, hostile, Plan.of(mask)), run(values, inputs, Plan.of(mask)))


@pytest.mark.parametrize("name", products(torch.float32))
def test_many_examples_are_taken_in_pieces_with_the_same_result(name):
    mask = np.random.default_rng(0).random((40, 1500)) < 0.9
    values, inputs = problem(mask, 200)
    gradient = torch.ones(40, 200)
    outputs = products(torch.float32)[name](values, inputs, Plan.of(mask))
    outputs.backward(gradient)
    assert close(outputs, dense_product(values, inputs, mask), torch.float32)
    reference = inputs.detach().double().requires_grad_()
    dense_product(values.detach(), reference, mask).backward(gradient.double())
    assert close(inputs.grad, reference.grad, torch.float32)


@pytest.mark.parametrize("name", products(torch.float64))
def test_training_is_masked_dense_training_step_by_step_for_a_survivor_at_0_too(name):
    mask, run = MASKS["some"], products(torch.float64)[name]
    plan, (start, data) = Plan.of(mask), problem(mask, 16, torch.float64)
    start = start.detach().clone()
    start[0] = 0.0
    target = torch.randn(len(mask), 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values, dense = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizers = [torch.optim.SGD([p], lr=0.05, momentum=0.9, weight_decay=0.01) for p in (values, dense)]
    for _ in range(8):
        both = run(values, data.detach(), plan), dense_product(dense, data.detach(), mask)
        for optimizer, product in zip(optimizers, both, strict=True):
            optimizer.zero_grad()
            ((product - target) ** 2).mean().backward()
            optimizer.step()
        assert torch.allclose(values, dense, rtol=1e-12, atol=1e-12)
    assert values[0] != 0


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16) for n in convolutions(dtype)],
    ids=lambda v: str(v),
)
@pytest.mark.parametrize(("shape", "geometry"), GEOMETRIES.values(), ids=GEOMETRIES.keys())
@pytest.mark.parametrize("keep", [0.0, 0.3, 1.0])
def test_convolutions_and_gradients_are_those_of_the_masked_kernel(name, shape, geometry, keep, dtype):
    mask = np.random.default_rng(0).random(shape) < keep
    plan = ConvPlan.of(mask, geometry)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 7, 8, plan.inputs, generator=generator).permute(0, 3, 1, 2).to(dtype)
    values = torch.randn(plan.weights.kept, generator=generator).to(dtype)
    leaves = values.clone().requires_grad_(), images.clone().requires_grad_()
    references = values.double().requires_grad_(), images.double().requires_grad_()
    outputs, expected = convolutions(dtype)[name](*leaves, plan), dense_convolution(*references, plan)
    assert close(outputs, expected, dtype)
    gradient = torch.randn(expected.shape, generator=generator).to(dtype)
    outputs.backward(gradient)
    expected.backward(gradient.double())
    for leaf, reference in zip(leaves, references, strict=True):
        assert close(leaf.grad, reference.grad, dtype)


def test_a_convolution_with_more_products_than_can_be_indexed_is_refused_and_never_chosen():
    plan = ConvPlan.of(np.ones((64, 64, 3, 3), bool), Geometry((3, 3)))
    bags = CONVOLUTIONS["bags"].value
    with pytest.raises(BadValue, match="products an example"):
        bags.product(torch.ones(plan.weights.kept), torch.ones(1, 64, 100, 100), plan)
    assert bags.seconds(plan, (1, 100, 100), machine(CPU, torch.float32)) == float("inf")


def test_the_cost_model_prefers_dense_for_dense_masks_and_sparse_for_sparse_ones():
    rates = machine(CPU, torch.float32)
    for density, best in ((1.0, {"dense"}), (0.02, {"bags", "csr", "compiled"})):
        plan = Plan.of(np.random.default_rng(0).random((512, 512)) < density)
        for batch in (1, 128, 1024):
            costs = {e.name: e.value.seconds(plan, batch, rates) for e in BACKENDS if e.name in products(torch.float32)}
            assert min(costs, key=costs.__getitem__) in best


def test_a_product_by_rows_has_the_gradients_of_the_dense_one_whatever_sums_the_rows():
    def multiply(entries, inputs, pattern):
        rows = torch.repeat_interleave(torch.arange(pattern.shape[0]), pattern.starts.diff())
        dense = torch.zeros(pattern.shape, dtype=entries.dtype)
        return dense.index_put((rows, pattern.columns.long()), entries) @ inputs

    mask = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
    values, inputs = problem(mask, 2, torch.float64)
    ours = by_rows(multiply, values, inputs, linear_pattern(Plan.of(mask), CPU))
    theirs = dense_product(values, inputs, mask)
    assert close(ours, theirs, torch.float64)
    gradients = [torch.autograd.grad(outputs.square().sum(), (values, inputs)) for outputs in (ours, theirs)]
    assert all(close(found, wanted, torch.float64) for found, wanted in zip(*gradients, strict=True))
