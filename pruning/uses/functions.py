"""Functions that networks apply element by element, by the names that PyTorch gives them in torch.nn.functional.

A name may carry numbers: `leaky_relu(0.2)` is another function than `leaky_relu`, whose slope is PyTorch's default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Function = Callable[..., Numbers]

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _elu(z: Numbers, alpha: float = 1.0) -> Numbers:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def _celu(z: Numbers, alpha: float = 1.0) -> Numbers:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0) / alpha))


def _softplus(z: Numbers, beta: float = 1.0) -> Numbers:
    return np.logaddexp(beta * z, 0) / beta


def _hardsigmoid(z: Numbers) -> Numbers:
    return np.clip(z + 3, 0, 6) / 6


def _sigmoid(z: Numbers) -> Numbers:
    from scipy.special import expit  # it takes a quarter of a second to import, and most searches need none of it

    return expit(z)


def _erf(z: Numbers) -> Numbers:
    from scipy.special import erf

    return erf(z)


def _gelu(z: Numbers) -> Numbers:
    from scipy.special import ndtr

    return z * ndtr(z)


def _gelu_tanh(z: Numbers) -> Numbers:
    return z * _sigmoid(2 * np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))


ACTIVATIONS: Mapping[str, Function] = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z, negative_slope=0.01: np.where(z > 0, z, negative_slope * z),
    "relu6": lambda z: np.clip(z, 0, 6),
    "elu": _elu,
    "selu": lambda z: _SELU_SCALE * _elu(z, _SELU_ALPHA),
    "celu": _celu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": lambda z: z * _sigmoid(1.702 * z),
    "silu": lambda z: z * _sigmoid(z),
    "mish": lambda z: z * np.tanh(_softplus(z)),
    "softplus": _softplus,
    "sigmoid": _sigmoid,
    "logsigmoid": lambda z: -np.logaddexp(-z, 0),
    "tanh": np.tanh,
    "tanhshrink": lambda z: z - np.tanh(z),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "hardtanh": lambda z, low=-1.0, high=1.0: np.clip(z, low, high),
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda z: z * _hardsigmoid(z),
    "softshrink": lambda z, size=0.5: np.sign(z) * np.maximum(np.abs(z) - size, 0),
    "hardshrink": lambda z, size=0.5: np.where(np.abs(z) > size, z, 0),
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "gaussian": lambda z: np.exp(-(z**2) / 2),
    "square": np.square,
    "relu_squared": lambda z: np.maximum(z, 0) ** 2,
    "abs": np.abs,
    "exp": np.exp,
}
"""By name. `gelu_tanh` is gelu(approximate="tanh"), and the gelu of JAX; `gaussian` is exp(-z²/2)."""
