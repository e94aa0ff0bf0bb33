"""What the Triton kernels promise, against masked dense products in float64.

`test_sparse_kernels.py` runs this file in a process of its own: triton's interpreter must be chosen before the kernels
are imported. Without `TRITON_INTERPRET=1`, `pytest tests/pruning/sparse_kernels.py` runs it on a CUDA device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from pruning.errors import BadValue, DeviceError, UnknownName
from pruning.sparse.kernels.gather import Table, gather_linear, gradients_of_weights, weighted_sums
from pruning.sparse.kernels.gather_convolution import gather_convolution
from pruning.sparse.kernels.gather_kernels import gather_sums
from pruning.sparse.kernels.gather_plan import Runs, linear_reads
from pruning.sparse.kernels.panels import panel_linear
from pruning.sparse.kernels.toolchain import is_interpreted
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry
from pruning.sparse.plans.plan import Plan

DEVICE = torch.device("cpu" if is_interpreted(gather_sums) else "cuda")
pytestmark = [
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1"),
    # What triton 3.6 does in its interpreter with a loop whose bounds are loaded.
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]
CHANCE = np.random.default_rng(0)
Product = Callable[[torch.Tensor, torch.Tensor, Plan], torch.Tensor]


def _without(mask: np.ndarray, rows: slice | int, columns: slice | int | list[int]) -> np.ndarray:
    mask = mask.copy()
    mask[rows, columns] = False
    return mask


SOME = CHANCE.random((20, 24)) < 0.3
MASKS = {
    "some": SOME,
    "an empty row": _without(SOME, 3, slice(None)),
    "an empty column": _without(SOME, slice(None), 7),
    "an empty panel": _without(CHANCE.random((40, 9)) < 0.3, slice(8, 28), slice(None)),
    "an empty layer": np.zeros((5, 6), bool),
    "one weight": np.eye(1, 30, 17, dtype=bool).reshape(5, 6),
    "all weights": np.ones((17, 35), bool),
    "one output": CHANCE.random((1, 70)) < 0.7,
    "one input": CHANCE.random((19, 1)) < 0.7,
    "one of each": np.ones((1, 1), bool),
}
PRODUCTS: dict[str, Product] = {
    "gather": gather_linear,
    "panels": panel_linear,
}
products = pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    numbers = torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape))
    return numbers.to(DEVICE, dtype)


def _spread(values: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    """The dense float64 weights [..., *mask.shape]."""
    shape = *values.shape[:-1], *mask.shape
    where = torch.from_numpy(mask).to(values.device).expand(shape)
    return torch.zeros(shape, dtype=torch.float64, device=values.device).masked_scatter(where, values)


def _assert_near(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert got.shape == wanted.shape
    if wanted.numel():
        error = (got.double() - wanted).norm() / wanted.norm().clamp_min(1e-30)
        assert error < tolerance, f"relative error {error:.1e}"


def _assert_equal_to_dense(
    function: Callable[..., torch.Tensor],
    dense: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    inputs: torch.Tensor,
    tolerance: float = 1e-5,
    asked: tuple[bool, bool] = (True, True),
) -> None:
    """Outputs, and the gradients that are asked for, of values and of inputs."""
    ours = [t.detach().requires_grad_(want) for t, want in zip((values, inputs), asked, strict=True)]
    theirs = [t.detach().double().requires_grad_(want) for t, want in zip((values, inputs), asked, strict=True)]
    got, wanted = function(*ours), dense(*theirs)
    assert got.dtype == inputs.dtype
    _assert_near(got, wanted, tolerance)
    gradient = _random(*wanted.shape, dtype=inputs.dtype)
    got.backward(gradient)
    wanted.backward(gradient.double())
    for mine, other in zip(ours, theirs, strict=True):
        if other.grad is None:
            assert mine.grad is None
        else:
            assert mine.grad is not None and mine.grad.dtype == mine.dtype
            _assert_near(mine.grad, other.grad, tolerance)


def _assert_linear(product: Product, mask: np.ndarray, values: torch.Tensor, inputs: torch.Tensor, **rest) -> None:
    plan = Plan.of(mask)
    _assert_equal_to_dense(lambda v, x: product(v, x, plan), lambda v, x: _spread(v, mask) @ x, values, inputs, **rest)


@products
@pytest.mark.parametrize("batch", [1, 37])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_outputs_and_gradients_are_those_of_masked_dense(product, mask, batch):
    _assert_linear(product, mask, _random(int(mask.sum())), _random(mask.shape[1], batch))


@products
@pytest.mark.parametrize("batch", [2, 3, 8, 9, 16])
def test_a_batch_may_have_any_size(product, batch):
    _assert_linear(product, SOME, _random(int(SOME.sum())), _random(24, batch))


@products
@pytest.mark.parametrize("asked", [(True, False), (False, True)], ids=["values", "inputs"])
def test_a_gradient_is_made_for_the_side_that_asks(product, asked):
    _assert_linear(product, SOME, _random(int(SOME.sum())), _random(24, 5), asked=asked)


INPUTS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: _random(5, 24).t(),
    "strided": lambda: _random(24, 32)[:, ::2],
    "unaligned": lambda: _random(24, 17)[:, 1:],
    "expanded": lambda: _random(24, 1).expand(24, 16),
    "a slice": lambda: _random(3, 24, 16)[1],
}


@products
@pytest.mark.parametrize("name", INPUTS)
def test_inputs_have_any_strides(product, name):
    _assert_linear(product, SOME, _random(int(SOME.sum())), INPUTS[name]())


@products
def test_values_have_any_strides(product):
    _assert_linear(product, SOME, _random(2 * int(SOME.sum()))[::2], _random(24, 5))


@products
def test_a_gradient_of_stride_0_counts_every_output(product):
    plan, values = Plan.of(SOME), _random(int(SOME.sum())).requires_grad_()
    product(values, torch.ones(24, 16, device=DEVICE), plan).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [16.0] * plan.kept


@products
def test_a_surviving_zero_trains(product):
    _assert_linear(product, SOME, torch.zeros(int(SOME.sum()), device=DEVICE), _random(24, 5))


@products
def test_infinity_in_a_feature_that_no_weight_reads_has_no_effect(product):
    mask = _without(SOME, slice(None), [0, 7])
    memory = torch.full((26, 16), torch.inf, device=DEVICE)  # infinite before and after the inputs, too
    inputs = memory[1:25].copy_(_random(24, 16))
    inputs[[0, 7]] = torch.inf
    values = _random(int(mask.sum())).requires_grad_()
    outputs = product(values, inputs.requires_grad_(), Plan.of(mask))
    by_values, by_inputs = torch.autograd.grad(outputs.sum(), (values, inputs))
    assert outputs.isfinite().all() and by_values.isfinite().all()
    assert not by_inputs[[0, 7]].any()


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")  # 0 · ∞ in the interpreter
def test_infinity_reaches_other_rows_of_its_panel_only_in_panels():
    mask = np.array([[1, 1], [0, 1]], bool)
    values, inputs, plan = (
        torch.ones(3, device=DEVICE),
        torch.tensor([[torch.inf], [1.0]], device=DEVICE),
        Plan.of(mask),
    )
    assert gather_linear(values, inputs, plan).flatten().tolist() == [torch.inf, 1.0]
    first, second = panel_linear(values, inputs, plan).flatten().tolist()
    assert first == torch.inf and second != second


@products
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_values_are_stored_in_half_and_summed_in_full(product, stored):
    plan, values, inputs = Plan.of(SOME), _random(int(SOME.sum()), dtype=stored), _random(24, 5)
    outputs = product(values.requires_grad_(), inputs, plan)
    _assert_near(outputs, _spread(values.detach().double(), SOME) @ inputs.double())
    outputs.sum().backward()
    assert outputs.dtype == torch.float32 and values.grad is not None and values.grad.dtype == stored


@products
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("values_dtype", [None, torch.float32], ids=["both", "inputs"])
def test_half_precision_keeps_its_tolerance(product, dtype, values_dtype):
    values = _random(int(SOME.sum()), dtype=values_dtype or dtype)
    _assert_linear(product, SOME, values, _random(24, 37, dtype=dtype), tolerance=1e-2)


@pytest.mark.parametrize("height", [32, 64])
def test_panels_have_any_height(height):
    mask = MASKS["an empty panel"]
    product = partial(panel_linear, height=height)
    _assert_linear(product, mask, _random(2, int(mask.sum())), _random(mask.shape[1], 19))


def test_tf32_runs():
    mask = MASKS["some"]
    tf32 = partial(panel_linear, precision="tf32")
    _assert_linear(tf32, mask, _random(int(mask.sum())), _random(24, 37), tolerance=2e-3)


@products
def test_a_bias_may_be_added_in_place(product):
    def with_bias(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
        return product(values, inputs, plan).add_(1.0).relu_()

    plan, values, inputs = Plan.of(SOME), _random(int(SOME.sum())), _random(24, 5)
    _assert_equal_to_dense(
        lambda v, x: with_bias(v, x, plan), lambda v, x: (_spread(v, SOME) @ x + 1.0).relu(), values, inputs
    )


@products
def test_a_batch_of_nothing_gives_nothing(product):
    values, inputs = _random(int(SOME.sum())).requires_grad_(), _random(24, 0).requires_grad_()
    outputs = product(values, inputs, Plan.of(SOME))
    outputs.sum().backward()
    assert outputs.shape == (20, 0) and values.grad is not None and not values.grad.any()


@products
def test_the_same_call_gives_the_same_bits_and_makes_no_table_twice(product):
    plan, values, inputs = Plan.of(SOME), _random(int(SOME.sum())), _random(24, 5)
    first, tables = product(values, inputs, plan), dict(plan.made)
    assert torch.equal(first, product(values, inputs, plan))
    assert tables.keys() == plan.made.keys() and all(plan.made[key] is tables[key] for key in tables)


def test_sums_and_gradients_of_runs_are_products_at_the_mask():
    table, values = Table.of(linear_reads(Plan.of(SOME)), DEVICE), _random(int(SOME.sum()))
    inputs, gradients = _random(24, 16), _random(20, 16)
    _assert_near(weighted_sums(values, inputs, table, Runs())[:, 0], _spread(values.double(), SOME) @ inputs.double())
    wanted = (gradients.double() @ inputs.double().t())[torch.from_numpy(SOME).to(DEVICE)]
    _assert_near(gradients_of_weights(inputs, gradients[:, None], table, Runs()), wanted)


def test_few_long_rows_are_summed_in_parts():
    mask = CHANCE.random((2, 1200)) < 0.9
    _assert_linear(gather_linear, mask, _random(int(mask.sum())), _random(1200, 1))


def test_few_weights_of_a_large_batch_are_summed_in_parts():
    mask = np.array([[1, 1, 0]], bool)
    _assert_linear(gather_linear, mask, _random(2), _random(3, 1500))


@pytest.mark.parametrize(("values", "inputs"), [((), (3,)), ((3,), ()), ((3,), (3,)), ((1,), (1,)), ((0,), (0,))])
@pytest.mark.parametrize("name", ["some", "an empty panel", "an empty layer"])
def test_a_population_shares_what_has_no_members(name, values, inputs):
    mask = MASKS[name]
    kept, features = int(mask.sum()), mask.shape[1]
    _assert_linear(panel_linear, mask, _random(*values, kept), _random(*inputs, features, 19))


def test_values_that_do_not_fit_are_refused():
    plan, values, inputs = Plan.of(SOME), _random(int(SOME.sum())), _random(24, 5)
    for product in (gather_linear, panel_linear):
        for wrong in ((values[1:], inputs), (values, inputs[1:]), (values, inputs[0])):
            with pytest.raises(BadValue, match=r"fit this plan, not \["):
                product(*wrong, plan)
        with pytest.raises(BadValue, match="float64"):
            product(values.double(), inputs, plan)
        with pytest.raises((BadValue, DeviceError), match="meta"):
            product(values.to("meta"), inputs, plan)
    with pytest.raises(BadValue, match="2 members and inputs of 3"):
        panel_linear(values.expand(2, -1), inputs.expand(3, -1, -1), plan)
    with pytest.raises(BadValue, match="a height of 16, 32, 64, not 8"):
        panel_linear(values, inputs, plan, height=8)
    with pytest.raises(UnknownName, match="did you mean 'tf32'"):
        panel_linear(values, inputs, plan, precision="tf23")


# (images, in, out, height, width), geometry
CONVOLUTIONS = {
    "padded": ((3, 4, 5, 5, 6), Geometry((3, 3), padding=((1, 1), (1, 1)))),
    "one by one": ((2, 5, 4, 3, 3), Geometry((1, 1))),
    "strided": ((2, 3, 4, 7, 8), Geometry((3, 2), (2, 3), ((1, 1), (1, 1)))),
    "a stride beyond the kernel": ((2, 3, 2, 9, 7), Geometry((1, 2), (4, 3))),
    "padded on one side": ((1, 2, 3, 4, 5), Geometry((2, 3), padding=((2, 0), (0, 3)))),
    "dilated": ((2, 2, 3, 7, 6), Geometry((3, 2), padding=((1, 2), (1, 0)), dilation=(2, 3))),
    "dilated and strided": ((2, 2, 3, 9, 8), Geometry((3, 3), (2, 2), ((2, 2), (2, 2)), (3, 2))),
    "grouped": ((2, 6, 4, 4, 4), Geometry((3, 3), padding=((1, 1), (1, 1)), groups=2)),
    "one channel each": ((2, 4, 8, 4, 4), Geometry((2, 2), (2, 2), groups=4)),
    "one dimension": ((2, 3, 4, 1, 9), Geometry((1, 3), (1, 2), ((0, 0), (1, 1)))),
    "of the image's size": ((3, 2, 4, 4, 4), Geometry((4, 4))),
    "many images": ((17, 2, 3, 3, 3), Geometry((2, 2), padding=((1, 0), (1, 0)))),
}
KERNEL_MASKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "some": lambda dense: np.random.default_rng(1).random(dense.shape) < 0.4,
    "an empty filter": lambda dense: _without(dense, 1, slice(None)),
    "an empty channel": lambda dense: _without(dense, slice(None), 0),
    "an empty layer": lambda dense: ~dense,
    "one weight": lambda dense: np.eye(1, dense.size, dense.size // 2, dtype=bool).reshape(dense.shape),
    "all weights": lambda dense: dense,
}


def _kernel_mask(name: str, sizes: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    return KERNEL_MASKS[name](np.ones((sizes[2], sizes[1] // geometry.groups, *geometry.kernel), bool))


def _assert_convolution(mask: np.ndarray, geometry: Geometry, inputs: torch.Tensor, **rest) -> None:
    plan = ConvPlan.of(mask, geometry)
    (above, below), (left, right) = geometry.padding

    def dense(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        images = torch.nn.functional.pad(images, (left, right, above, below))
        weight = _spread(values, mask)
        return torch.nn.functional.conv2d(images, weight, None, geometry.stride, 0, geometry.dilation, geometry.groups)

    values = _random(plan.weights.kept)
    _assert_equal_to_dense(lambda v, x: gather_convolution(v, x, plan), dense, values, inputs, **rest)


@pytest.mark.parametrize(("sizes", "geometry"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_the_masked_dense_one_for_every_geometry(sizes, geometry):
    count, channels, _, height, width = sizes
    _assert_convolution(_kernel_mask("some", sizes, geometry), geometry, _random(count, channels, height, width))


@pytest.mark.parametrize("name", KERNEL_MASKS)
def test_a_convolution_is_the_masked_dense_one_for_every_mask(name):
    sizes, geometry = CONVOLUTIONS["strided"]
    _assert_convolution(_kernel_mask(name, sizes, geometry), geometry, _random(2, 3, 7, 8))


@pytest.mark.parametrize("asked", [(True, False), (False, True)], ids=["values", "inputs"])
def test_a_convolution_makes_a_gradient_for_the_side_that_asks(asked):
    sizes, geometry = CONVOLUTIONS["padded"]
    _assert_convolution(_kernel_mask("some", sizes, geometry), geometry, _random(3, 4, 5, 6), asked=asked)


def test_images_have_any_strides():
    sizes, geometry = CONVOLUTIONS["padded"]
    mask = _kernel_mask("some", sizes, geometry)
    channels_last = _random(3, 4, 5, 6).to(memory_format=torch.channels_last)
    turned = _random(4, 3, 6, 10)[:, :, :, ::2].mT.transpose(0, 1)
    for images in (channels_last, turned):
        _assert_convolution(mask, geometry, images)


def test_images_of_half_precision_keep_their_tolerance():
    sizes, geometry = CONVOLUTIONS["padded"]
    images = _random(3, 4, 5, 6, dtype=torch.bfloat16)
    _assert_convolution(_kernel_mask("some", sizes, geometry), geometry, images, tolerance=1e-2)


def test_infinity_in_a_channel_that_no_weight_reads_has_no_effect():
    geometry = Geometry((3, 3), padding=((1, 1), (1, 1)))
    mask = np.ones((2, 3, 3, 3), bool)
    mask[:, 1] = False
    values, images = _random(36).requires_grad_(), _random(2, 3, 4, 4)
    images[:, 1] = torch.inf
    outputs = gather_convolution(values, images.requires_grad_(), ConvPlan.of(mask, geometry))
    outputs.sum().backward()
    assert outputs.isfinite().all()
    assert values.grad is not None and values.grad.isfinite().all()
    assert images.grad is not None and not images.grad[:, 1].any()


def test_a_bias_may_be_added_to_a_convolution_in_place():
    plan = ConvPlan.of(np.ones((2, 3, 2, 2), bool), Geometry((2, 2)))
    values, images = _random(24).requires_grad_(), _random(3, 3, 3, 3)
    outputs = gather_convolution(values, images, plan).add_(1.0)
    _assert_near(outputs, torch.nn.functional.conv2d(images.double(), values.detach().double().view(2, 3, 2, 2)) + 1.0)
    outputs.sum().backward()
    assert values.grad is not None and values.grad.any()


def test_a_convolution_of_no_images_gives_nothing():
    sizes, geometry = CONVOLUTIONS["padded"]
    plan = ConvPlan.of(_kernel_mask("some", sizes, geometry), geometry)
    values, images = _random(plan.weights.kept).requires_grad_(), _random(0, 4, 5, 6).requires_grad_()
    outputs = gather_convolution(values, images, plan)
    outputs.sum().backward()
    assert outputs.shape == (0, 5, 5, 6) and values.grad is not None and not values.grad.any()


def test_images_that_do_not_fit_are_refused():
    plan = ConvPlan.of(np.ones((2, 3, 3, 3), bool), Geometry((3, 3)))
    for wrong in (_random(1, 2, 4, 4), _random(3, 4, 4)):
        with pytest.raises(BadValue, match=r"inputs \[N, 3, H, W\] fit this plan"):
            gather_convolution(_random(54), wrong, plan)
    with pytest.raises(BadValue, match="does not fit into an input"):
        gather_convolution(_random(54), _random(1, 3, 2, 4), plan)


def test_tables_of_one_mask_do_not_mix_geometries_and_sizes():
    mask = np.ones((2, 1, 2, 2), bool)
    for geometry in (Geometry((2, 2)), Geometry((2, 2), dilation=(2, 1))):
        for side in (3, 4):
            _assert_convolution(mask, geometry, _random(2, 1, side, side))
