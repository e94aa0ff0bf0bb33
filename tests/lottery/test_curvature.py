"""Curvature: against the whole Hessian of networks small enough to have one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lottery import Data, find_ticket
from lottery.data.parts import Parts, Tensors
from lottery.networks.objectives.objective import objective_for
from lottery.results.intervals import t_interval
from lottery.runs.directory import RunDirectory
from lottery.runs.given import Given
from lottery.state.tensors import state_of
from lottery.studies.analyses import ANALYSES, Study
from lottery.studies.measures.curvature import Surface, flatness, surface, top_eigenvalues, trace
from lottery.studies.reopening import reopen
from lottery.studies.view import TorchView
from pruning.errors import BadValue, MaskMismatch
from pruning.mask import Mask
from tests.lottery.helpers import blobs, tiny_model


def view_of(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> TorchView:
    part = Tensors(inputs, targets)
    parts = Parts(part, part, part, "tiny")
    return TorchView(model, parts, objective_for(targets), torch.device("cpu"))


def tanh_view() -> TorchView:
    """6-4-3 with a batch norm, in float64: 47 parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    x, y = blobs(300)
    return view_of(model, torch.from_numpy(x).double(), torch.from_numpy(y))


def mask_of(view: TorchView, density: float) -> Mask:
    rng = np.random.Generator(np.random.PCG64(1))
    shapes = {name: tuple(p.shape) for name, p in view.model.named_parameters() if p.dim() > 1}
    return Mask({name: rng.random(shape) < density for name, shape in shapes.items()})


def whole_hessian(view: TorchView, where: Surface, mask: Mask) -> np.ndarray:
    """The Hessian over survivors and all other parameters, from a loss written out anew."""
    named = {name: p.detach().clone() for name, p in where.network.named_parameters()}
    keeps = {n: torch.from_numpy(mask[n].copy()) if n in mask else torch.ones_like(p).bool() for n, p in named.items()}
    buffers = dict(where.network.named_buffers())
    train = view.parts.train
    assert isinstance(train, Tensors)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts, at = {}, 0
        for name, keep in keeps.items():
            count = int(keep.sum())
            parts[name] = torch.zeros_like(named[name]).masked_scatter(keep, flat[at : at + count])
            at += count
        outputs = torch.func.functional_call(where.network, {**parts, **buffers}, (train.inputs,))
        return nn.functional.cross_entropy(outputs, train.targets)

    start = torch.cat([named[name][keep] for name, keep in keeps.items()])
    return torch.autograd.functional.hessian(loss, start).numpy()


@pytest.fixture(params=[1.0, 0.4], ids=["dense", "masked"])
def case(request):
    view = tanh_view()
    mask = mask_of(view, request.param)
    where = surface(view, state_of(view.model), mask)
    return where, whole_hessian(view, where, mask)


def test_products_are_those_of_the_whole_hessian_over_survivors(case):
    where, hessian = case
    assert hessian.shape == (where.dimension, where.dimension)
    columns = torch.stack([where.product(unit) for unit in torch.eye(where.dimension, dtype=torch.float64)])
    np.testing.assert_allclose(columns.numpy(), hessian, atol=1e-12)


def test_lanczos_finds_the_top_eigenvalues(case):
    where, hessian = case
    exact = np.linalg.eigvalsh(hessian)[::-1]
    found = top_eigenvalues(where, 1, 20)
    assert found.values[0] == pytest.approx(exact[0], abs=1e-6)
    everything = top_eigenvalues(where, where.dimension, where.dimension)
    np.testing.assert_allclose(everything.values, exact, atol=1e-9)
    # an eigenvalue lies within the residual of a Ritz value, however few the iterations
    rough = top_eigenvalues(where, 2, 4)
    for value, residual in zip(rough.values, rough.residuals, strict=True):
        assert np.abs(exact - value).min() <= residual + 1e-12
    assert rough.residuals[0] > found.residuals[0]


def test_the_trace_is_within_three_standard_errors(case):
    where, hessian = case
    found = trace(where, 200)
    assert abs(found.value - np.trace(hessian)) < 3 * found.error
    # the variance of Hutchinson's estimate with random signs: twice the squares off the diagonal
    exact = np.sqrt(2 * ((hessian**2).sum() - (np.diag(hessian) ** 2).sum()) / 200)
    assert found.error == pytest.approx(exact, rel=0.35)


def quadratic() -> TorchView:
    """Mean squared error of a linear layer without bias on an orthonormal basis: the Hessian is 2/3 of the identity."""
    torch.manual_seed(0)
    return view_of(nn.Linear(3, 1, bias=False).double(), torch.eye(3).double(), torch.zeros(3, 1).double())


def test_equal_eigenvalues_are_all_found():
    view = quadratic()
    where = surface(view, state_of(view.model), Mask({"weight": [[1, 1, 1]]}))
    np.testing.assert_allclose(top_eigenvalues(where, 3, 3).values, 2 / 3, atol=1e-12)
    found = trace(where, 2)
    assert (found.value, found.error) == (pytest.approx(2), pytest.approx(0, abs=1e-12))


def test_flatness_steps_along_survivors_only():
    view = quadratic()
    weight = np.array([[0.0, 2.0, 3.0]])
    where = surface(view, {"weight": weight}, Mask({"weight": [[0, 1, 1]]}))
    found = flatness(where, (0.0, 0.5), directions=3, seed=4)
    assert found.centre[0] == pytest.approx((4 + 9) / 3)
    np.testing.assert_allclose(found.loss[0], found.centre[0], rtol=1e-12)
    generator = torch.Generator().manual_seed(4)
    for column in range(3):
        step = 0.5 * torch.randn(2, generator=generator, dtype=torch.float64).numpy()
        assert found.loss[1, column] == pytest.approx(((2 + step[0]) ** 2 + (3 + step[1]) ** 2) / 3)
    assert where.measure()[0] == found.centre[0]  # nothing was changed


def test_the_sample_and_the_directions_follow_from_the_seed():
    view = tanh_view()
    mask, state = mask_of(view, 0.4), state_of(view.model)
    one, same, other = (surface(view, state, mask, examples=40, seed=seed) for seed in (0, 0, 1))
    assert top_eigenvalues(one).values == top_eigenvalues(same).values != top_eigenvalues(other).values
    assert trace(one, 3) == trace(same, 3) != trace(one, 3, seed=1)


def test_what_cannot_be_asked():
    view = quadratic()
    where = surface(view, state_of(view.model), Mask({"weight": [[1, 1, 0]]}))
    with pytest.raises(BadValue, match="count must be from 1 to 2"):
        top_eigenvalues(where, 3)
    with pytest.raises(BadValue, match="probes must be 2 or more"):
        trace(where, 1)
    with pytest.raises(BadValue, match="sigmas of 0 or more"):
        flatness(where, (-0.1,))
    with pytest.raises(MaskMismatch):
        surface(view, state_of(view.model), Mask({"weigth": [[1, 1, 0]]}))
    with pytest.raises(BadValue, match="no trainable weight"):
        surface(view, state_of(view.model), Mask({"weight": [[0, 0, 0]]}))


def test_the_analysis_looks_at_every_level_and_replicate(tmp_path):
    data = Data(train=blobs(96), validation=blobs(30, seed=1))
    search = find_ticket(tiny_model, data, levels=1, replicates=2, steps=20, tolerance=1.0, out=tmp_path).search
    assert search is not None
    study = Study(search, RunDirectory(search.run), lambda: reopen(search.run, Given(tiny_model, data))[1])
    found = ANALYSES["sharpness"].value(study)
    assert found.arrays["eigenvalue"].shape == found.arrays["trace_error"].shape == (2, 2)
    assert found.arrays["loss_rise"].shape == (2, 2, 3)
    # 48 and 24 weights; biases and batch norm count always
    kept = np.array([[r.kept for r in level.replicates] for level in search.levels])
    np.testing.assert_array_equal(found.arrays["dimension"], kept + 8 + 16 + 3)
    where = surface(study.view, study.trained(1, 1), study.mask(1, 1))
    assert found.arrays["eigenvalue"][1, 1] == top_eigenvalues(where, seed=1).values[0]
    # every replicate has probes and directions of its own, and what is printed of several is an interval
    assert found.arrays["trace"][1, 1] == trace(where, 5, seed=1).value != trace(where, 5).value
    rise = flatness(where, (0.1,), 5, seed=1)
    assert found.arrays["loss_rise"][1, 1, 2] == rise.loss.mean() - rise.centre[0]
    row = found.text.splitlines()[2]
    assert row.split()[:2] == ["1", "80.56%"] and row.count("[") == row.count("]") == 5
    low, high = t_interval(found.arrays["trace"][1]) or (0, 0)
    assert f"{found.arrays['trace'][1].mean():.4g} [{low:.3g}, {high:.3g}]" in row
    assert found.as_json()["n"] == 2


def test_curvature_is_taken_over_what_training_moved_only(tmp_path):
    data = Data(train=blobs(96), validation=blobs(30, seed=1))
    settings = {"levels": 1, "steps": 20, "tolerance": 1.0, "train_only": ["norm", "4.*"], "out": tmp_path}
    search = find_ticket(tiny_model, data, **settings).search
    assert search is not None
    study = Study(search, RunDirectory(search.run), lambda: reopen(search.run, Given(tiny_model, data))[1])
    found = ANALYSES["sharpness"].value(study)
    # scale and shift of the batch norm, and the last layer with its bias; the first layer never moved
    kept = [study.mask(0, level).counts()["4.weight"] for level in range(2)]
    assert found.arrays["dimension"][:, 0].tolist() == [16 + count + 3 for count in kept]
    assert "that train_only names (norm, 4.*)" in found.text and "[" not in found.text.splitlines()[1]
