"""Gains of activations: published numbers, closed forms, and what holds for every function."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate

from pruning.errors import BadValue, UnknownName
from pruning.initializers.unit_scaled import unit_scaled
from pruning.starts.activations import function_of
from pruning.starts.gains import (
    ACTIVATIONS,
    backward_gain,
    gain,
    gain_before,
    input_gain,
    kumar_gain,
    optimal_sigma,
)
from pruning.starts.weight import Weight

VI3NR = {
    "relu": math.sqrt(2),
    "tanh": 1.59254,
    "sigmoid": 1.84623,
    "gelu": 1.53353,
    "silu": 1.67653,
    "sin": 1.52087,
    "gaussian": 1.31607,
}


def test_vi3nr_gain_table_to_1e_5_and_optimal_sigma_of_the_gaussian():
    for name, number in VI3NR.items():
        assert gain(name) == pytest.approx(number, abs=1e-5), name
    assert optimal_sigma("gaussian") == pytest.approx(math.sqrt(1 + math.sqrt(2)), abs=1e-8)
    sigma = optimal_sigma("gaussian")
    assert sigma == pytest.approx(1.553774, abs=1e-6)
    assert (sigma / gain("gaussian", sigma)) ** 2 == pytest.approx(0.4142136, abs=1e-7)  # E[f²]
    assert (sigma / backward_gain("gaussian", sigma)) ** 2 == pytest.approx(0.4142136, abs=1e-7)  # σ² E[f'²]


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7])
def test_closed_forms(sigma):
    decay = math.exp(-2 * sigma**2)  # E[cos(2 σ z)]
    assert gain("sin", sigma) == pytest.approx(sigma / math.sqrt((1 - decay) / 2), rel=1e-9)
    assert backward_gain("sin", sigma) == pytest.approx(1 / math.sqrt((1 + decay) / 2), rel=1e-7)
    assert gain("gaussian", sigma) == pytest.approx(sigma * (1 + 2 * sigma**2) ** 0.25, rel=1e-9)
    assert gain("square", sigma) == pytest.approx(1 / (math.sqrt(3) * sigma), rel=1e-9)
    for slope in (0.01, 0.2):
        assert gain(f"leaky_relu({slope})", sigma) ** 2 == pytest.approx(2 / (1 + slope**2), rel=1e-6)
        assert backward_gain(f"leaky_relu({slope})", sigma) ** 2 == pytest.approx(2 / (1 + slope**2), rel=1e-6)
    jump = gain("hardshrink", sigma) ** -2  # E[z²; |z| > a] = 2 (a φ(a) + 1 - Φ(a))
    edge = 0.5 / sigma
    tail = math.erfc(edge / math.sqrt(2)) + 2 * edge * math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi)
    assert jump == pytest.approx(tail, rel=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_gain_is_that_of_adaptive_quadrature(name):
    def mean(function):
        def inside(z):
            return float(function(np.array([z]))[0]) * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

        edges = [-12, -3, -1, -0.5, 0, 0.5, 1, 3, 6, 12]  # kinks lie on them
        return sum(integrate.quad(inside, a, b, epsabs=1e-11)[0] for a, b in itertools.pairwise(edges))

    function = function_of(name)
    assert gain(name) == pytest.approx(1 / math.sqrt(mean(lambda z: function(z) ** 2)), abs=1e-6)
    slope = mean(lambda z: ((function(z + 1e-5) - function(z - 1e-5)) / 2e-5) ** 2) if name != "hardshrink" else None
    if slope is not None:
        assert backward_gain(name) == pytest.approx(1 / math.sqrt(slope), abs=1e-4)


TORCH = {
    "relu": torch.relu,
    "leaky_relu": torch.nn.functional.leaky_relu,
    "leaky_relu(0.2)": torch.nn.LeakyReLU(0.2),
    "relu6": torch.nn.functional.relu6,
    "elu": torch.nn.functional.elu,
    "elu(0.5)": torch.nn.ELU(0.5),
    "selu": torch.nn.functional.selu,
    "celu(2)": torch.nn.CELU(2.0),
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": torch.nn.GELU(approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "mish": torch.nn.functional.mish,
    "softplus": torch.nn.functional.softplus,
    "softplus(2)": torch.nn.Softplus(beta=2),
    "sigmoid": torch.sigmoid,
    "logsigmoid": torch.nn.functional.logsigmoid,
    "tanh": torch.tanh,
    "tanhshrink": torch.nn.functional.tanhshrink,
    "softsign": torch.nn.functional.softsign,
    "hardtanh": torch.nn.functional.hardtanh,
    "hardtanh(-2,3)": torch.nn.Hardtanh(-2, 3),
    "hardsigmoid": torch.nn.functional.hardsigmoid,
    "hardswish": torch.nn.functional.hardswish,
    "softshrink": torch.nn.functional.softshrink,
    "hardshrink": torch.nn.functional.hardshrink,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
}


@pytest.mark.parametrize("name", TORCH)
def test_a_name_is_the_function_that_pytorch_calls_so(name):
    z = np.linspace(-7, 7, 281)
    # PyTorch's softplus is the identity from 20 on.
    np.testing.assert_allclose(function_of(name)(z), function_of(TORCH[name])(z), atol=1e-6)


def test_kumars_rule():
    # Numbers of the paper: 3.6/√N for the logistic function, 1/√N for tanh, √(2/N) for rectified linear units.
    assert kumar_gain("sigmoid") == pytest.approx(3.578, abs=5e-4)
    assert kumar_gain("sigmoid") == pytest.approx(4 / math.sqrt(1.25), abs=1e-6)
    assert kumar_gain("tanh") == pytest.approx(1, abs=1e-6)
    assert kumar_gain("relu") == pytest.approx(math.sqrt(2), abs=1e-9)
    assert kumar_gain("silu") == pytest.approx(2, abs=1e-6)
    with pytest.raises(BadValue, match=r"'gaussian' is flat at 0.*rule=forward"):
        kumar_gain("gaussian")


def test_any_sigma_serves_rectified_linear_units():
    assert optimal_sigma("relu") == 1.0
    for sigma in (0.1, 1.0, 30.0):
        assert gain("relu", sigma) == pytest.approx(backward_gain("relu", sigma), rel=1e-6)


def test_where_no_sigma_keeps_both_signals_and_gradients_it_is_said():
    with pytest.raises(BadValue, match=r"'tanh' has no sigma .* init_params.sigma=1"):
        optimal_sigma("tanh")


@pytest.mark.parametrize("name", ["sigmoid", "cos", "hardsigmoid"])
def test_at_the_optimal_sigma_both_gains_agree(name):
    sigma = optimal_sigma(name)
    assert gain(name, sigma) == pytest.approx(backward_gain(name, sigma), rel=1e-6)


def test_a_layer_that_sees_the_data():
    assert input_gain(0, 1) == 1
    assert input_gain(3, 4, sigma=10) == 2
    with pytest.raises(BadValue, match="no weights make a signal"):
        input_gain(0, 0)


def test_a_function_of_the_callers_own():
    assert gain(np.tanh) == gain("tanh")
    assert gain(torch.nn.Tanh()) == pytest.approx(gain("tanh"), abs=1e-12)
    assert gain(lambda z: z.clamp(min=0) ** 2) == pytest.approx(gain("relu_squared"), abs=1e-6)
    assert gain("torch.nn.functional:mish") == pytest.approx(gain("mish"), abs=1e-9)
    assert gain(torch.nn.PReLU()) == pytest.approx(gain("leaky_relu(0.25)"), abs=1e-6)


@pytest.mark.parametrize(
    ("activation", "error", "says"),
    [
        ("rleu", UnknownName, "relu"),
        ("leaky_relu(steep)", BadValue, r"expected leaky_relu\(negative_slope\), numbers"),
        ("relu(2)", BadValue, "expected 'relu', without numbers"),
        ("math:tanh", BadValue, "takes neither an array nor a tensor"),
        (lambda z: z.sum(), BadValue, "element by element"),
        (lambda z: 0 * z, BadValue, "has no gain: its mean square is 0"),
        (np.log, BadValue, "has no gain: its mean square is nan"),
        (lambda z: np.exp(z**2), BadValue, "has no gain"),
    ],
)
def test_what_has_no_gain_is_said_in_one_line(activation, error, says):
    with pytest.raises(error, match=says) as raised:
        gain(activation)
    assert "\n" not in str(raised.value)


def test_a_scheme_takes_every_rule():
    weight = Weight("w", np.array([[True] * 4, [True, False, False, False]]), activation="sigmoid")

    def std(**settings):
        drawn = unit_scaled(weight, np.random.default_rng(0), **settings)
        return np.asarray(drawn) / np.asarray(unit_scaled(weight, np.random.default_rng(0), gain=1.0, fan="in"))

    np.testing.assert_allclose(std(), gain("sigmoid"), rtol=1e-6)
    np.testing.assert_allclose(std(rule="kumar"), 4 / math.sqrt(1.25), rtol=1e-6)
    np.testing.assert_allclose(std(sigma=2.0), gain("sigmoid", 2.0), rtol=1e-6)
    np.testing.assert_allclose(std(sigma="optimal"), gain("sigmoid", optimal_sigma("sigmoid")), rtol=1e-6)
    np.testing.assert_allclose(std(rule="backward", fan="in"), backward_gain("sigmoid"), rtol=1e-6)
    fan_out_over_in = [[math.sqrt(4 / 2), 2, 2, 2], [math.sqrt(1 / 2), 1, 1, 1]]
    np.testing.assert_allclose(
        std(rule="backward") * fan_out_over_in ** np.array(-1.0), backward_gain("sigmoid"), rtol=1e-6
    )


def test_bad_settings_are_said():
    weight = Weight("w", np.ones((2, 2), bool), activation=None)
    with pytest.raises(UnknownName, match="backward"):
        gain_before(weight, None, "relu", rule="bakward")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadValue, match="expected a positive number, or optimal"):
        gain_before(weight, None, "relu", sigma=-1.0)
    with pytest.raises(BadValue, match="'w' goes through was not found: name it"):
        gain_before(weight, None, None)
