"""The Triton kernels compile for an H100 or H200, on a machine that has none, to the instructions that are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pruning.sparse.kernels.gather_kernels import gather_gradients, gather_sums
from pruning.sparse.kernels.gather_plan import gradient_tile, sum_tile
from pruning.sparse.kernels.panel_kernels import panel_gradients, panel_products
from pruning.sparse.kernels.panel_plan import CHUNK
from pruning.sparse.kernels.panels import WARPS
from pruning.sparse.kernels.toolchain import is_interpreted, tl
from tests.pruning.sm90 import Code, compiled

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(is_interpreted(gather_sums), reason="the interpreter runs the kernels in this process")

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
PANEL_INTEGERS = {"panels": "i32", "tiles": "i32", "output_rows": "i32", "summed": "i32", "units": "i32"}
GRADIENT_INTEGERS = {"chunks": "i32", "output_rows": "i32", "summed": "i32", "units": "i32"}
RUN_INTEGERS = {"count": "i32", "length": "i32", "step": "i32"}


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))

    def built(kernel: Any, types: dict[str, str], constants: dict[str, Any], aligned=(), **options: int) -> Code:
        ones = {name: 1 for name, kind in types.items() if kind == "one"}
        types = {name: kind for name, kind in types.items() if kind != "one"}
        return compiled(kernel, types, {**ones, **constants}, aligned, tmp_path / "cubin", **options)

    return built


def _operand(*kinds: str) -> Any:
    return {"fp32": tl.float32, "bf16": tl.bfloat16, "fp16": tl.float16}[kinds[0] if len({*kinds}) == 1 else "fp32"]


def _panel_products(
    build: Any, height: int, inputs: str, values: str, precision: str, batch: int = 128, integer: str = "i32"
) -> Code:
    tensors = {"inputs": inputs, "values": values, "rows": "i32", "starts": "i64", "columns": "i32", "positions": "i32"}
    types = {name: f"*{kind}" for name, kind in {**tensors, "outputs": inputs}.items()}
    integers = dict.fromkeys(PANEL_INTEGERS, integer)
    constants = {"HEIGHT": height, "CHUNK": CHUNK, "BATCH": batch, "ALIGN": 16, "PRECISION": precision}
    return build(
        panel_products,
        {**types, **integers, "inputs_step": "i64", "values_step": "i64"},
        {**constants, "OPERAND": _operand(inputs, values)},
        ("inputs_step",),
        num_warps=WARPS,
        num_stages=3,
    )


def _panel_gradients(build: Any, height: int, inputs: str, precision: str, integer: str = "i32") -> Code:
    tensors = {"inputs": inputs, "gradients": inputs, "rows": "i32", "columns": "i32", "owners": "i32"}
    types = {name: f"*{kind}" for name, kind in {**tensors, "positions": "i32", "outputs": "fp32"}.items()}
    integers = dict.fromkeys(GRADIENT_INTEGERS, integer)
    constants = {"HEIGHT": height, "CHUNK": CHUNK, "BATCH": 64, "ALIGN": 16, "PRECISION": precision}
    return build(
        panel_gradients,
        {**types, **integers, "inputs_step": "i64", "kept": "i32"},
        {**constants, "OPERAND": _operand(inputs)},
        ("inputs_step",),
        num_warps=WARPS,
        num_stages=3,
    )


def _gather_sums(
    build: Any, kind: str, fan_in: float, numbers: int, align: int, parts: int = 1, integer: str = "i32"
) -> Code:
    tile = sum_tile(fan_in, numbers, BYTES[kind])
    tensors = {"inputs": kind, "values": kind, "bases": "i16", "starts": "i32", "rows": "i32", "longest": "i32"}
    types = {name: f"*{held}" for name, held in {**tensors, "outputs": kind if parts == 1 else "fp32"}.items()}
    integers = dict.fromkeys(("groups", "tiles", "all_rows", *RUN_INTEGERS, "units"), integer)
    constants = {"ROWS": tile.rows, "WEIGHTS": tile.weights, "BATCH": tile.batch, "PARTS": parts, "ALIGN": align}
    return build(gather_sums, {**types, **integers}, constants, num_warps=tile.warps)


def _gather_gradients(
    build: Any, kind: str, fan_in: float, numbers: int, align: int, parts: int = 1, integer: str = "i32"
) -> Code:
    tile = gradient_tile(fan_in, numbers, BYTES[kind])
    tensors = {"inputs": kind, "gradients": kind, "bases": "i32", "starts": "i32", "rows": "i32", "firsts": "i32"}
    types = {name: f"*{held}" for name, held in {**tensors, "outputs": "fp32"}.items()}
    steps = "gradients_row", "gradients_step", "units"
    integers = dict.fromkeys(("segments", "tiles", "kept", *RUN_INTEGERS, *steps), integer)
    constants = {"WEIGHTS": tile.weights, "BATCH": tile.batch, "PARTS": parts, "ALIGN": align}
    return build(gather_gradients, {**types, **integers}, constants, num_warps=tile.warps)


@pytest.mark.parametrize("height", [16, 64])
@pytest.mark.parametrize(
    ("inputs", "values", "precision"),
    [("fp32", "fp32", "tf32"), ("bf16", "bf16", "ieee"), ("fp16", "fp16", "ieee"), ("fp32", "bf16", "tf32")],
)
def test_panels_use_the_tensor_cores_and_copy_ahead(build, height, inputs, values, precision):
    code = _panel_products(build, height, inputs, values, precision)
    assert code.spilled == 0
    assert code.asynchronous > 0
    assert (code.mma > 0, code.wgmma > 0) == ((True, False) if height == 16 else (False, True))


@pytest.mark.parametrize("height", [16, 64])
@pytest.mark.parametrize(("inputs", "precision"), [("fp32", "tf32"), ("bf16", "ieee")])
def test_gradients_in_panels_use_the_tensor_cores_and_copy_ahead(build, height, inputs, precision):
    code = _panel_gradients(build, height, inputs, precision)
    assert code.spilled == 0
    assert code.asynchronous > 0
    assert (code.mma > 0, code.wgmma > 0) == ((True, False) if height == 16 else (False, True))


@pytest.mark.parametrize("height", [32, 64])
def test_ieee_panels_keep_their_sums_in_registers_and_use_no_tensor_core(build, height):
    for code in (
        _panel_products(build, height, "fp32", "fp32", "ieee"),
        _panel_gradients(build, height, "fp32", "ieee"),
    ):
        assert code.spilled == 0
        assert code.asynchronous > 0
        assert code.mma == code.wgmma == 0


# (type, weights of a row, numbers of a run, alignment): a linear layer in batches of 1, 4 and 1024, a row of few
# weights, lines of images
@pytest.mark.parametrize(
    ("kind", "fan_in", "numbers", "align"),
    [
        ("fp32", 200, 1, 1),
        ("fp32", 200, 4, 4),
        ("fp32", 200, 1024, 16),
        ("bf16", 200, 1024, 16),
        ("fp32", 3, 1024, 16),
        ("fp32", 27, 14 * 32, 16),
    ],
)
def test_a_gather_loads_vectors_where_rows_are_aligned_and_spills_nothing(build, kind, fan_in, numbers, align):
    sums, gradients = (one(build, kind, fan_in, numbers, align) for one in (_gather_sums, _gather_gradients))
    assert sums.spilled == gradients.spilled == 0
    if align > 1:
        tile = sum_tile(fan_in, numbers, BYTES[kind])
        of_each_thread = tile.rows * tile.weights * tile.batch * BYTES[kind] // (32 * tile.warps * 16)
        assert sums.vectors >= of_each_thread


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_a_gather_of_a_large_batch_moves_nothing_through_shared_memory_in_its_loop(build, kind):
    assert _gather_sums(build, kind, 200, 1024, 16).shuffles == 0


def test_sums_in_parts_compile(build):
    assert _gather_sums(build, "bf16", 200, 1, 1, parts=8).spilled == 0
    assert _gather_gradients(build, "bf16", 200, 1024, 16, parts=8).spilled == 0


def test_every_integer_may_be_1(build):
    """Triton compiles an argument that is 1 as a constant."""
    assert _panel_products(build, 16, "fp32", "fp32", "tf32", batch=16, integer="one").spilled == 0
    assert _panel_gradients(build, 16, "fp32", "tf32", integer="one").spilled == 0
    assert _gather_sums(build, "fp32", 1, 1, 1, integer="one").spilled == 0
    assert _gather_gradients(build, "fp32", 1, 1, 1, integer="one").spilled == 0
