"""The Triton kernels under triton's interpreter, and what they say where they cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from pruning.errors import BadValue, DeviceError
from pruning.sparse.kernels import toolchain
from pruning.sparse.kernels.gather import gather_linear
from pruning.sparse.kernels.gather_convolution import gather_convolution
from pruning.sparse.kernels.gather_kernels import gather_sums
from pruning.sparse.kernels.panel_plan import CHUNK, panels, transposed_panels, union_density
from pruning.sparse.kernels.panels import panel_linear
from pruning.sparse.kernels.toolchain import is_interpreted
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry
from pruning.sparse.plans.plan import Plan

PROMISES = [Path(__file__).with_name(name) for name in ("sparse_kernels.py", "sparse_modules_on_kernels.py")]
WITHOUT_TRITON = """
import os, sys
sys.modules["triton"] = None
before = dict(os.environ)
import torch
from pruning.errors import DeviceError
from pruning.sparse.kernels import gather_convolution, panels
from pruning.sparse.kernels.gather import gather_linear
from pruning.sparse.plans.plan import Plan
assert os.environ == before
try:
    gather_linear(torch.ones(1), torch.ones(2, 1), Plan.of([[0, 1]]))
except DeviceError as error:
    print(error)
"""


def _promises(**environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *map(str, PROMISES)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_"))}
    done = subprocess.run(
        command, env={**variables, **environment}, cwd=PROMISES[0].parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_kernels_keep_their_promises_in_the_interpreter():
    _promises(TRITON_INTERPRET="1")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_keep_their_promises_on_a_device():
    pytest.importorskip("triton")
    _promises()


@pytest.mark.skipif(is_interpreted(gather_sums), reason="the interpreter takes tensors of the CPU")
@pytest.mark.parametrize("name", ["panel_linear", "gather_linear", "gather_convolution"])
def test_tensors_on_the_cpu_are_refused(name):
    plan, values, inputs = Plan.of([[0, 1]]), torch.ones(1), torch.ones(2, 1)
    convolution = ConvPlan.of(np.ones((1, 1, 1, 1), bool), Geometry((1, 1)))
    calls = {
        "panel_linear": lambda: panel_linear(values, inputs, plan),
        "gather_linear": lambda: gather_linear(values, inputs, plan),
        "gather_convolution": lambda: gather_convolution(values, torch.ones(1, 1, 2, 2), convolution),
    }
    with pytest.raises(DeviceError, match=rf"{name} needs a CUDA device and triton \(pip install 'lottery-tickets\["):
        calls[name]()


def test_without_triton_everything_imports_and_says_what_is_missing():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("gather_linear needs a CUDA device and triton")
    assert done.stdout.rstrip().endswith("triton is not installed")


@pytest.mark.parametrize("height", [16, 32])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
def test_panels_hold_every_weight_once(height, density):
    mask = np.random.default_rng(0).random((70, 90)) < density
    plan = Plan.of(mask)
    for made, side, order in (
        (panels(plan, height), mask, np.arange(plan.kept)),
        (transposed_panels(plan, height), mask.T, plan.to_transposed),
    ):
        spread = np.full(side.shape, -1)
        spread[side] = order
        tiles = made.positions.reshape(-1, height, CHUNK)
        filled = np.full(side.shape, -1)
        for chunk, panel in enumerate(made.owners):
            rows, columns = made.rows.reshape(-1, height)[panel], made.columns.reshape(-1, CHUNK)[chunk]
            for row, column in np.argwhere(tiles[chunk] >= 0):
                assert filled[rows[row], columns[column]] == -1
                filled[rows[row], columns[column]] = tiles[chunk, row, column]
        assert np.array_equal(filled, spread)
        assert sorted(made.rows[made.rows >= 0]) == list(range(len(side)))


def test_the_panel_with_most_columns_comes_first_and_empty_rows_share_panels():
    mask = np.zeros((64, 200), bool)
    mask[1::2] = np.random.default_rng(0).random((32, 200)) < np.linspace(0.01, 0.5, 32)[:, None]
    made = panels(Plan.of(mask), 16)
    widths = np.diff(made.starts)
    assert np.array_equal(widths, np.sort(widths)[::-1])
    assert np.count_nonzero(widths) == 2


def test_rows_sorted_by_weight_touch_less_than_rows_as_they_come():
    mask = np.random.default_rng(0).random((256, 256)) < np.random.default_rng(1).random(256)[:, None] ** 6
    plan = Plan.of(mask)
    as_they_come = mask.reshape(16, 16, 256).any(1).mean()
    assert plan.density <= union_density(plan, 16) < 0.8 * as_they_come
    assert union_density(plan, 1) == pytest.approx(plan.density)


def test_a_kernel_is_required_to_run_where_all_tensors_lie_in_types_that_it_takes(monkeypatch):
    numbers = torch.ones(1)
    monkeypatch.setattr(toolchain, "runs", lambda kernel, device: False)
    with pytest.raises(DeviceError, match="gather needs a CUDA device and triton"):
        toolchain.require(gather_sums, "gather", numbers, numbers)
    monkeypatch.setattr(toolchain, "runs", lambda kernel, device: True)
    toolchain.require(gather_sums, "gather", numbers, numbers.half())
    with pytest.raises(DeviceError, match="values are on cpu and inputs on meta"):
        toolchain.require(gather_sums, "gather", numbers, numbers.to("meta"))
    with pytest.raises(BadValue, match="not values of torch.float64"):
        toolchain.require(gather_sums, "gather", numbers.double(), numbers)
