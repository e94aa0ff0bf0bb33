"""Which function the results of an array of a JAX function go through, what feeds it, how many edges meet behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from es.jax_models.functions import jax_network
from es.jax_models.uses import jax_uses
from pruning.uses.uses import Uses


def uses_of(tree: Any, apply: Any, inputs: Any) -> Uses:
    network, params = jax_network(tree, apply)
    uses = jax_uses(network, params, [name for name in params if params[name].ndim > 1], inputs)
    assert not uses.reason
    return uses


def w(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


X = w(5, 3)


def between(function: Callable[[Any], Any], compiled: bool = False) -> str | None:
    """Return what is found of a function between two products."""

    def apply(p: Any, x: Any) -> Any:
        return function(x @ p["first"] + p["bias"]) @ p["second"]

    tree = {"first": w(3, 4), "bias": w(4), "second": w(4, 2)}
    uses = uses_of(tree, jax.jit(apply) if compiled else apply, X)
    assert uses.activations["second"] == "linear" and uses.feeds == {"first": (), "second": ("first",)}
    return uses.activations.get("first")


NAMED = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": lambda z: jax.nn.gelu(z, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
    "mish": jax.nn.mish,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "logsigmoid": jax.nn.log_sigmoid,
    "tanh": jnp.tanh,
    "softsign": jax.nn.soft_sign,
    "hardtanh": jax.nn.hard_tanh,
    "hardsigmoid": jax.nn.hard_sigmoid,
    "hardswish": jax.nn.hard_silu,
    "erf": jax.scipy.special.erf,
    "sin": jnp.sin,
    "linear": jax.nn.softmax,
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NAMED)
def test_a_function_of_jax(name, compiled):
    assert between(NAMED[name], compiled) == name


BY_HAND = {
    "relu by a choice": ("relu", lambda z: jnp.where(z > 0, z, 0)),
    "relu by clipping": ("relu", lambda z: jnp.clip(z, 0)),
    "silu": ("silu", lambda z: z * jax.nn.sigmoid(z)),
    "leaky relu": ("leaky_relu(0.2)", lambda z: jax.nn.leaky_relu(z, 0.2)),
    "gaussian": ("gaussian", lambda z: jnp.exp(-(z**2) / 2)),
    "log softmax": ("linear", jax.nn.log_softmax),
    "a norm": ("tanh", lambda z: jnp.tanh((z - z.mean(-1, keepdims=True)) / (z.std(-1, keepdims=True) + 1e-5))),
    "dropout": (
        "relu",
        lambda z: jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, z.shape), jax.nn.relu(z) / 0.5, 0),
    ),
    "no known function": (None, lambda z: z**5),
    "another scale inside": (None, lambda z: jnp.sin(30 * z)),
    "two functions": (None, lambda z: jax.nn.relu(z) + jnp.tanh(z[:, ::-1])),
    "slopes of its own": (None, lambda z: jnp.where(z > 0, z, z * jnp.arange(4.0))),
    "no operation element by element": (None, lambda z: jnp.linalg.qr(z)[0]),
}


@pytest.mark.parametrize("how", BY_HAND)
def test_a_function_written_by_hand_is_told_by_its_numbers(how):
    name, function = BY_HAND[how]
    assert between(function) == name


@pytest.mark.parametrize(("act", "name"), [(jnp.tanh, "tanh"), (lambda z: z, "linear")])
def test_the_graph_with_three_edges_into_one_vertex(act, name):
    # 0→1, {0,1}→2, {0,1,2}→3→4
    def apply(p, x):
        one = act(x @ p["w01"])
        two = act(x @ p["w02"] + one @ p["w12"])
        return act(x @ p["w03"] + one @ p["w13"] + two @ p["w23"]) @ p["w34"]

    degrees = {"w01": 1, "w02": 2, "w12": 2, "w03": 3, "w13": 3, "w23": 3, "w34": 1}
    uses = uses_of({edge: w(3, 3) for edge in degrees}, apply, X)
    assert uses.in_degrees == degrees
    assert uses.feeds["w34"] == ("w03", "w13", "w23") and uses.feeds["w23"] == ("w02", "w12")
    assert uses.activations == dict.fromkeys(degrees, name) | {"w34": "linear"}


def followed(module: nn.Module, inputs: Any) -> tuple[dict[str, str], dict[str, int]]:
    """Return functions and edges of the kernels of a module, by their names without what is the same in all."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    uses = uses_of(variables, lambda v, x: module.apply(v, x, mutable=["batch_stats"])[0], inputs)
    kernels = {name.removeprefix("params.").removesuffix(".kernel"): name for name in uses.in_degrees}
    known = {short: uses.activations[name] for short, name in kernels.items() if name in uses.activations}
    return known, {short: uses.in_degrees[name] for short, name in kernels.items()}


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(4, (3, 3))(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        y = nn.silu(nn.GroupNorm(2)(nn.Conv(4, (3, 3))(x)))
        x = nn.relu(x + nn.LayerNorm()(nn.Conv(4, (3, 3))(y)))
        return nn.log_softmax(nn.Dense(3)(nn.avg_pool(x, (2, 2), (2, 2)).mean((1, 2))))


def test_convolution_norm_function_pooling_and_a_residual_block():
    activations, in_degrees = followed(Residual(), w(2, 8, 8, 1))
    assert activations == {"Conv_0": "relu", "Conv_1": "silu", "Conv_2": "relu", "Dense_0": "linear"}
    assert in_degrees == {"Conv_0": 1, "Conv_1": 1, "Conv_2": 2, "Dense_0": 1}


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention", use_bias=False)(nn.LayerNorm()(x))
        x = x + nn.Dense(8, name="down")(nn.gelu(nn.Dense(16, name="up")(nn.RMSNorm()(x))))
        return nn.Dense(2, name="head")(x.mean(1))


def test_a_transformer_layer():
    activations, in_degrees = followed(Transformer(), w(2, 4, 8))
    linear = [f"attention.{part}" for part in ("query", "key", "value", "out")] + ["down", "head"]
    assert activations == dict.fromkeys(linear, "linear") | {"up": "gelu_tanh"}
    assert {name for name, degree in in_degrees.items() if degree == 2} == {"attention.out", "down"}


class Recurrent(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x):
        states: Any = nn.RNN(self.cell(5, name="cell"))(x)
        return nn.Dense(2, name="head")(states.mean(1))


def test_gates_that_are_tensors_of_their_own_have_their_functions():
    activations, in_degrees = followed(Recurrent(nn.LSTMCell), w(2, 4, 3))
    gates = {f"cell.{side}{gate}": "sigmoid" for side in "ih" for gate in "ifo"}
    assert activations == gates | {"cell.ig": "tanh", "cell.hg": "tanh", "head": "linear"}
    assert {degree for name, degree in in_degrees.items() if "cell" in name} == {2}
    plain, _ = followed(Recurrent(nn.SimpleCell), w(2, 4, 3))
    assert plain == {"cell.i": "tanh", "cell.h": "tanh", "head": "linear"}


def test_a_loop_over_stacked_layers():
    def apply(p, x):
        return jax.lax.scan(lambda h, layer: (jnp.tanh(h @ layer), None), x, p["layers"])[0] @ p["head"]

    uses = uses_of({"layers": w(3, 4, 4), "head": w(4, 2)}, apply, w(2, 4))
    assert uses.activations == {"layers": "tanh", "head": "linear"} and uses.feeds["layers"] == ("layers",)


def test_a_table_that_is_looked_up():
    uses = uses_of(
        {"table": w(9, 4), "head": w(4, 2)}, lambda p, x: jax.nn.relu(p["table"][x]) @ p["head"], jnp.ones(5, int)
    )
    assert uses.activations == {"table": "relu", "head": "linear"} and uses.feeds["head"] == ("table",)
