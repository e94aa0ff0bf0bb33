"""Plain JAX pairs as networks of named arrays."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from es.jax_models.functions import jax_network, jax_prunable, rebuild
from pruning.errors import BadValue, MaskMismatch, NothingToPrune, UnknownName

X = jnp.linspace(-1, 1, 8).reshape(2, 4)


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Embed(3, 4)(jnp.zeros(x.shape[0], int)) + linen.LayerNorm()(linen.Dense(4)(x))
        return linen.Dense(2)(x)


def dictionary() -> tuple[Any, Any]:
    return {"fc": {"w": jnp.ones((4, 2)), "b": jnp.zeros(2)}, "step": jnp.array(3)}, lambda t, x: x @ t["fc"]["w"]


def sequence() -> tuple[Any, Any]:
    return [jnp.ones((4, 3)), (np.ones((3, 2), "float32"), None, 2.0)], lambda t, x: x @ t[0] @ t[1][0] * t[1][2]


def flax_variables() -> tuple[Any, Any]:
    module = Dense()
    return module.init(jax.random.key(0), X), module.apply


def flax_state() -> tuple[Any, Any]:
    graph, state = nnx.split(nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    return state, lambda t, x: nnx.merge(graph, t)(x)


def equinox_module() -> tuple[Any, Any]:
    module = eqx.nn.MLP(4, 2, 5, 1, activation=jax.nn.gelu, key=jax.random.key(0))
    return module, lambda t, x: jax.vmap(t)(x)


@pytest.mark.parametrize("pair", [dictionary, sequence, flax_variables, flax_state, equinox_module])
def test_a_pair_computes_what_its_function_does(pair: Any):
    tree, apply = pair()
    network, params = jax_network(tree, apply)
    assert all(type(value) is np.ndarray for value in params.values())
    np.testing.assert_allclose(jax.jit(network.apply)(params, X), apply(tree, X), rtol=1e-5)
    stacked = {name: jnp.stack([value, 2 * value]) for name, value in params.items()}
    double = {name: 2 * value for name, value in params.items()}
    population = jax.jit(jax.vmap(network.apply, (0, None)))(stacked, X)
    np.testing.assert_allclose(population[1], jax.jit(network.apply)(double, X), rtol=1e-5)
    loss = jax.jit(jax.grad(lambda p: network.apply({**params, **p}, X).sum()))
    gradients = loss({name: params[name] for name in network.evolved})
    assert all(np.isfinite(value).all() for value in gradients.values())
    assert jax.tree.structure(rebuild(tree, params)) == jax.tree.structure(tree)


def test_names_of_pairs():
    assert jax_network(*dictionary())[0].evolved == ("fc.b", "fc.w")
    assert list(jax_network(*dictionary())[1]) == ["fc.b", "fc.w", "step"]
    assert jax_network(*sequence())[0].evolved == ("0", "1.0")
    assert "layers.0.weight" in jax_network(*equinox_module())[0].evolved
    assert "params.Dense_0.kernel" in jax_network(*flax_variables())[0].evolved


def test_double_precision_becomes_single_and_keys_stay():
    tree = {"w": np.ones((2, 2)), "key": jax.random.key(0)}
    network, params = jax_network(tree, lambda t, x: x @ t["w"] + jax.random.normal(t["key"]))
    assert list(params) == ["w"] and params["w"].dtype == np.float32
    assert network.apply(params, jnp.ones((1, 2))).shape == (1, 2)


def test_what_a_mask_covers():
    assert list(jax_prunable(flax_variables()[0])) == ["params.Dense_0.kernel", "params.Dense_1.kernel"]
    assert list(jax_prunable(equinox_module()[0])) == ["layers.0.weight", "layers.1.weight"]
    tree = {"pos_embedding": jnp.ones((2, 2)), "norm1": {"k": jnp.ones((2, 2))}, "upper": jnp.ones((2, 2))}
    assert jax_prunable(tree) == {"upper": (2, 2)}
    assert list(jax_prunable(dictionary()[0], only=["fc.*"])) == ["fc.b", "fc.w"]
    assert list(jax_prunable(dictionary()[0], only=["fc.*"], skip=["*.b"])) == ["fc.w"]
    with pytest.raises(UnknownName, match="prunable: 'fd"):
        jax_prunable(dictionary()[0], only=["fd.*"])
    with pytest.raises(NothingToPrune, match="no prunable array among its 1"):
        jax_prunable({"w": jnp.ones((2, 2), int)})


def test_what_is_no_pair_is_an_error():
    with pytest.raises(BadValue, match="expected a function"):
        jax_network({"w": jnp.ones(1)}, {"w": 1})  # pyright: ignore[reportArgumentType]
    with pytest.raises(MaskMismatch, match="no array 'wieght' .closest: weight"):
        rebuild({"weight": jnp.ones(1)}, {"wieght": jnp.ones(1)})
    with pytest.raises(MaskMismatch, match="two leaves"):
        jax_network({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, lambda t, x: x)
