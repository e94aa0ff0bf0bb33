"""How plain JAX functions use their arrays, whatever they are called: order, outputs, axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from es.jax_models.functions import jax_network
from es.jax_models.uses import jax_uses
from pruning.uses.uses import Uses


def uses_of(tree: Any, apply: Any, inputs: Any) -> Uses:
    network, params = jax_network(tree, apply)
    return jax_uses(network, params, [name for name in params if params[name].ndim > 1], inputs)


def w(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def perceptron(p: Any, x: Any) -> Any:
    return jnp.tanh(jnp.tanh(x @ p["z"]) @ p["m"].T * 2) @ p["a"]


def scanned(p: Any, x: Any) -> Any:
    return jax.lax.scan(lambda h, layer: (jnp.tanh(h @ layer), None), x, p["layers"])[0] @ p["a"]


def recurrent(p: Any, x: Any) -> Any:
    def cell(h: Any, step: Any) -> Any:
        return jnp.tanh(step @ p["into"] + h @ p["hidden"]), None

    return jax.lax.scan(cell, jnp.zeros((len(x), 4)), x.swapaxes(0, 1))[0] @ p["a"]


def convolved(p: Any, x: Any) -> Any:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, p["k"], (1, 1), "SAME", dimension_numbers=layout).mean((1, 2)) @ p["a"]


def attention(p: Any, x: Any) -> Any:
    return jnp.einsum("nthd,hde->nte", jnp.einsum("nte,ehd->nthd", x, p["q"]), p["a"])


def branched(p: Any, x: Any) -> Any:
    return jax.lax.cond(x.sum() > 0, lambda h: h @ p["m"], lambda h: h @ p["n"], x) @ p["a"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("apply", "tree", "inputs", "order", "outputs", "axes"),
    [
        (
            perceptron,
            {"z": w(3, 4), "m": w(5, 4), "a": w(5, 2)},
            w(2, 3),
            "zma",
            "a",
            {"z": (1, 0), "m": (0, 1), "a": (1, 0)},
        ),
        (scanned, {"layers": w(3, 4, 5 - 1), "a": w(4, 2)}, w(2, 4), ["layers", "a"], "a", {"layers": ((0, 2), 1)}),
        (
            recurrent,
            {"into": w(3, 4), "hidden": w(4, 4), "a": w(4, 2)},
            w(2, 6, 3),
            None,
            "a",
            {"into": (1, 0), "hidden": (1, 0)},
        ),
        (convolved, {"k": w(3, 3, 1, 4), "a": w(4, 2)}, w(2, 5, 5, 1), "ka", "a", {"k": (3, 2)}),
        (attention, {"q": w(6, 2, 3), "a": w(2, 3, 6)}, w(2, 4, 6), "qa", "a", {"q": ((1, 2), 0), "a": (2, (0, 1))}),
        (branched, {"m": w(3, 4), "n": w(3, 4), "a": w(4, 2)}, w(2, 3), "mna", "a", {"m": (1, 0), "n": (1, 0)}),
        (lambda p, x: [x @ p[1] + 1, x @ p[0]], [w(3, 2), w(3, 2)], w(2, 3), None, "01", {"0": (1, 0)}),
    ],
    ids=["perceptron", "scan", "recurrent", "convolution", "attention", "cond", "heads"],
)
def test_what_a_program_says(apply, tree, inputs, order, outputs, axes, compiled):
    uses = uses_of(tree, jax.jit(apply) if compiled else apply, inputs)
    assert uses.outputs == set(outputs) and not uses.reason
    assert order is None or set(uses.order) == set(order)
    assert order is None or compiled or list(uses.order) == list(order) or apply is branched
    for name, (out, into) in axes.items():
        expected = tuple(each if isinstance(each, tuple) else (each,) for each in (out, into))
        assert (uses.axes[name].outputs, uses.axes[name].inputs) == expected


def test_what_is_not_known_is_not_said():
    uses = uses_of({"a": w(3, 4), "b": w(4, 4)}, lambda p, x: (x @ p["a"]) @ p["b"] @ p["b"].T, w(2, 3))
    assert "b" not in uses.axes  # its rows are outputs of one product and inputs of the other
    uses = uses_of(
        {"a": w(3, 4), "b": w(4, 4)}, lambda p, x: x @ p["a"] @ p["b"].reshape(16)[:8].reshape(4, 2), w(2, 3)
    )
    assert set(uses.axes) == {"a"} and uses.outputs == {"b"}


def test_a_function_that_fails_is_told():
    assert "TypeError" in uses_of({"a": w(3, 4)}, lambda p, x: x @ p["a"], w(2, 5)).reason
    assert "do not depend" in uses_of({"a": w(3, 4)}, lambda p, x: x, w(2, 5)).reason
