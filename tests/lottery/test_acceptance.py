"""The fourteen checks that say whether sparse starts and their measurements are right, in both frameworks.

Where a check is of arrays alone, PyTorch and JAX share the very function; where a network is drawn, both are drawn.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from lottery import find_ticket
from lottery.networks.sources.choosing import init_for, model_source
from lottery.runs.ticket import Ticket
from lottery.search.data_scores.el2n import el2n
from lottery.search.data_scores.grand import grand
from lottery.studies.measures.agreement import majority_p_value
from lottery.studies.measures.similarity import kernel_alignment, unit_kernel
from lottery.studies.measures.support import solve_on_support
from pruning.initializers import Initializer, get_initializer
from pruning.mask import Mask
from pruning.starts.gains import gain, optimal_sigma
from pruning.starts.structural_rank import isometry_floor

WIDTH, DEPTH = 512, 10
FRAMEWORKS = ("torch", "jax")


class Deep(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


def deep(framework: str, width: int, depth: int) -> Any:
    """Return a maker of the same network in either framework, with tensors of the same names."""
    if framework == "torch":
        return lambda seed: Deep(width, depth)
    names = [f"layers.{index}.weight" for index in range(depth)]

    def apply(params: Any, x: Any) -> Any:
        for name in names:
            x = jnp.maximum(x @ params[name].T, 0)
        return x

    return lambda seed: ({name: np.zeros((width, width), np.float32) for name in names}, apply)


@cache
def source_of(framework: str, width: int, depth: int) -> Any:
    return model_source(deep(framework, width, depth), parts(width))


@cache
def parts(width: int) -> Any:
    from lottery.data import Data
    from lottery.data.parts import prepare

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, width), np.float32), rng.integers(0, 2, 32)
    return prepare(Data(train=(x, y), validation=(x, y), test=(x, y)), seed=0)


def drawn(framework: str, scheme: Initializer, mask: Mask, seed: int, width: int, depth: int) -> Any:
    source = source_of(framework, width, depth)
    return source.drawn(seed, mask, init_for(source, parts(width), scheme)).params


def masks(width: int, depth: int, density: float, seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    return Mask({f"layers.{index}.weight": rng.random((width, width)) < density for index in range(depth)})


def outputs(framework: str, params: Any, depth: int, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if framework == "torch":
        network = Deep(x.shape[1], depth)
        network.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
        with torch.no_grad():
            return network(torch.tensor(x)).numpy()
    return np.asarray(deep("jax", x.shape[1], depth)(0)[1](params, jnp.asarray(x)))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("masked", "dense"),
    [("unit-scaled", "kaiming-normal"), ("layer-scaled", "kaiming-normal"), ("constant-fan-in", "kaiming-normal")],
)
def test_01_a_full_mask_equals_dense(framework, masked, dense):
    full = Mask.dense({"layers.0.weight": (32, 32)})
    params = drawn(framework, get_initializer(masked, {"activation": "relu"}), full, 0, 32, 1)
    # by NumPy's generator in both frameworks: in PyTorch the dense scheme itself draws from PyTorch's
    reference = drawn("jax", get_initializer(dense), full, 0, 32, 1)
    assert np.allclose(params["layers.0.weight"], reference["layers.0.weight"], rtol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_02_a_dense_draw_fades_as_density_to_the_depth_and_one_from_the_mask_does_not(framework):
    x = np.random.default_rng(1).standard_normal((8, WIDTH), np.float32)
    ratios: dict[str, list[float]] = {"kaiming-normal": [], "unit-scaled": []}
    for seed in range(20):
        mask = masks(WIDTH, DEPTH, 0.1, seed)
        for name, found in ratios.items():
            params = mask.apply(dict(drawn(framework, get_initializer(name), mask, seed, WIDTH, DEPTH)))
            # E[h²] of the ReLU's input: twice that of its output
            found.append(2 * float(np.mean(np.square(outputs(framework, params, DEPTH, x), dtype=np.float64))) / 2)
    expected = float(np.mean(x**2)) / 2
    assert np.mean(ratios["unit-scaled"]) == pytest.approx(expected * 2, rel=0.2)
    assert np.mean(ratios["kaiming-normal"]) == pytest.approx(expected * 2 * 0.1**DEPTH, rel=0.2)


def test_03_gains_by_quadrature():
    table = {"relu": 2**0.5, "tanh": 1.59254, "sigmoid": 1.84623, "gelu": 1.53353, "silu": 1.67653, "sin": 1.52087}
    assert {name: gain(name) for name in table} == pytest.approx(table, abs=1e-5)
    assert optimal_sigma("gaussian") == pytest.approx((1 + 2**0.5) ** 0.5, abs=1e-5)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_04_exact_orthogonal_weights_are_isometric_and_keep_their_count(framework):
    mask = masks(64, 2, 0.14, 0)
    source = source_of(framework, 64, 2)
    found = source.drawn(0, mask, init_for(source, parts(64), get_initializer("exact-orthogonal", {"gain": 1.0})))
    for name, keep in found.mask.items():
        weights = found.params[name].astype(np.float64)
        assert weights.T @ weights == pytest.approx(
            np.eye(64), abs=1e-6
        )  # as float32 holds it; 1e-12 where it is drawn
        assert keep.sum() == mask[name].sum()


def test_05_the_floor_of_an_isometry():
    assert isometry_floor(np.array([[True, True], [False, False]])) == 1.0


def test_06_cka_of_the_reference():
    rng = np.random.RandomState(1337)
    x = rng.randn(100, 10)
    y = rng.randn(100, 10) + x
    assert kernel_alignment(unit_kernel(x), unit_kernel(y)) == pytest.approx(0.55761, abs=5e-6)
    debiased = kernel_alignment(unit_kernel(x, debiased=True), unit_kernel(y, debiased=True))
    assert debiased == pytest.approx(0.51346, abs=5e-6)


def test_08_el2n_and_grand():
    zero = nn.Linear(4, 10)
    for parameter in zero.parameters():
        nn.init.zeros_(parameter)
    x, y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    errors, gradients = el2n([zero], x, y), grand([zero], x, y)
    assert errors.round(6).tolist() == [0.948683] * 6
    assert gradients == pytest.approx(errors * np.sqrt((x.numpy() ** 2).sum(1) + 1), rel=1e-5)


def test_10_conjugate_gradients_on_a_support_equal_the_dense_solve_restricted_to_it():
    rng = np.random.default_rng(0)
    root, right, keep = rng.standard_normal((30, 30)), rng.standard_normal(30), rng.random(30) < 0.5
    matrix = root @ root.T + np.eye(30)
    found = solve_on_support(matrix, right, keep)
    assert found[keep] == pytest.approx(np.linalg.solve(matrix[np.ix_(keep, keep)], right[keep]), abs=1e-9)
    assert not found[~keep].any()


@pytest.mark.parametrize(
    ("first", "second", "p"), [(5, 0, 0.0625), (6, 0, 0.03125), (9, 1, 0.0215), (8, 2, 0.1094), (15, 5, 0.0414)]
)
def test_11_p_values_of_a_selective_ensemble(first, second, p):
    assert majority_p_value(first, second) == pytest.approx(p, abs=5e-5)


@pytest.mark.parametrize(("framework", "trainer"), [("torch", "gd"), ("jax", "optax"), ("torch", "es")])
def test_12_rewinding_restores_bits_inside_the_mask_and_nothing_outside(framework, trainer, tmp_path):
    model: Any = pair if framework == "jax" else Small
    length: dict[str, Any] = {"generations": 4, "population": 4} if trainer == "es" else {"steps": 12}
    asked: dict[str, Any] = {"levels": 2, "tolerance": 1.0, "quiet": True, "trainer": trainer, **length}
    ticket = find_ticket(model, "digits", out=tmp_path, **asked)
    assert ticket.search is not None
    dense, *pruned = (Ticket.load(level.alive[0].path) for level in ticket.search.levels)
    for level in pruned:
        trained = level.trained_params
        assert trained is not None
        for name, keep in level.mask.items():
            assert np.array_equal(level.params[name][keep], dense.params[name][keep])
            assert not trained[name][~keep].any()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x.flatten(1)).relu())


def pair(seed: int) -> Any:
    keys = jax.random.split(jax.random.key(seed))
    params = {"a": jax.random.normal(keys[0], (64, 16)) / 8, "b": jax.random.normal(keys[1], (16, 10)) / 4}
    return params, lambda tree, x: jnp.maximum(x.reshape(len(x), -1) @ tree["a"], 0) @ tree["b"]


@pytest.mark.parametrize("name", ["unit-scaled", "orthogonal", "layer-scaled", "signed-constant", "exact-orthogonal"])
def test_13_both_frameworks_have_equal_moments_and_equal_spectra(name):
    mask = masks(64, 2, 0.3, 0)
    for at in mask:
        one, other = (
            mask.apply(dict(drawn(framework, get_initializer(name), mask, 0, 64, 2)))[at] for framework in FRAMEWORKS
        )
        assert np.array_equal(one, other)
        assert np.linalg.svd(one)[1] == pytest.approx(np.linalg.svd(other)[1])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["unit-scaled", "layer-scaled", "orthogonal", "signed-constant", "torch-default"])
def test_14_a_unit_without_inputs_has_a_row_of_zeros_and_finite_gradients(framework, name):
    mask = {at: keep.copy() for at, keep in masks(32, 2, 0.5, 0).items()}
    mask["layers.0.weight"][3] = False
    params = drawn(framework, get_initializer(name), Mask(mask), 0, 32, 2)
    assert not params["layers.0.weight"][3].any()
    x = np.random.default_rng(0).standard_normal((4, 32), np.float32)
    if framework == "torch":
        network = Deep(32, 2)
        network.load_state_dict({at: torch.tensor(value) for at, value in params.items()})
        network(torch.tensor(x)).sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)
    else:
        apply = deep("jax", 32, 2)(0)[1]
        found = jax.grad(lambda p: apply(p, jnp.asarray(x)).sum())(params)
        assert all(bool(jnp.isfinite(g).all()) for g in found.values())
