"""Whole networks on the Triton kernels, against masked dense ones; run like `sparse_kernels.py`, beside it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.kernels.gather_kernels import gather_sums
from pruning.sparse.kernels.toolchain import is_interpreted
from pruning.sparse.module import sparse_module
from pruning.sparse.network.graphed import Graphed
from pruning.torch_modules import hold_mask, prunable

DEVICE = torch.device("cpu" if is_interpreted(gather_sums) else "cuda")
pytestmark = [
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]


def case(kind):
    torch.manual_seed(0)
    if kind == "linear":
        network, shape = nn.Sequential(nn.Linear(20, 18), nn.ReLU(), nn.Linear(18, 5)), (6, 20)
    else:
        layers = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2)
        network, shape = nn.Sequential(*layers), (4, 2, 7, 6)
    rng = np.random.default_rng(0)
    mask = Mask({name: rng.random(size) < 0.4 for name, size in prunable(network).items()})
    return network.to(DEVICE), mask, torch.randn(shape).to(DEVICE)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [("linear", "gather"), ("linear", "panels-16"), ("linear", "panels-64"), ("convolution", "gather")],
)
def test_a_network_on_kernels_runs_and_trains_as_the_masked_dense_one(kind, backend):
    network, mask, inputs = case(kind)
    module = sparse_module(network, mask, inputs, choosing=Choosing(backend=backend, cache=None))
    assert {layer.backend for layer in module.report.layers} == {backend}
    dense = hold_mask(copy.deepcopy(network), mask)
    with torch.no_grad():
        assert torch.allclose(module.eval()(inputs), dense.eval()(inputs), rtol=1e-5, atol=1e-5)
    for model in (module.train(), dense.train()):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    wanted = dense.state_dict()
    assert all(torch.allclose(v, wanted[n], rtol=1e-4, atol=1e-5) for n, v in module.state_dict().items())


def test_the_dispatcher_times_kernels_beside_dense():
    network, mask, inputs = case("linear")
    report = sparse_module(network, mask, inputs, choosing=Choosing(cache=None, seconds=0.0)).report
    assert report.dense_seconds is not None and all(layer.dense_seconds for layer in report.layers)


@pytest.mark.cuda
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
def test_a_graph_replays_what_the_network_computes_for_each_shape():
    network, _, _ = case("linear")
    graphed = Graphed(network.eval())
    for batch in (3, 8, 3):
        inputs = torch.randn(batch, 20, device=DEVICE)
        first = graphed(inputs)
        kept = first.clone()
        graphed(torch.randn(batch, 20, device=DEVICE))
        assert torch.equal(first, kept)
        with torch.no_grad():
            assert torch.allclose(first, network(inputs), rtol=1e-5, atol=1e-5)
