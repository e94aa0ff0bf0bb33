"""Models of JAX people in one form: modules of Flax and Equinox, pairs, train states."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from es.jax_models import kinds as jax_kinds
from es.jax_models.functions import jax_network, jax_prunable, rebuild
from es.jax_models.kinds import jax_kind
from es.jax_models.modules import jax_model
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.pytrees import apply_mask, leaf_names

X = jnp.linspace(-1, 1, 24).reshape(4, 6)


class Linen(linen.Module):
    """Statistics, dropout, and a switch without a default, as most people write it."""

    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(linen.relu(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.layers[1](self.dropout(nnx.relu(self.norm(self.layers[0](x)))))


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    second: eqx.nn.Linear | None
    activation: Callable[..., Any] = eqx.field(static=True)

    def __init__(self, key: Any):
        self.first = eqx.nn.Linear(6, 3, key=key)
        self.dropout, self.second, self.activation = eqx.nn.Dropout(0.5), None, jax.nn.relu

    def __call__(self, x: Any, key: Any = None) -> Any:
        return self.activation(self.dropout(self.first(x), key=key))


class Stateful(eqx.Module):
    layer: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, key: Any):
        self.layer, self.norm = eqx.nn.Linear(6, 3, key=key), eqx.nn.BatchNorm(3, "batch", mode="batch")

    def __call__(self, x: Any, state: Any) -> Any:
        return self.norm(self.layer(x), state)


class Transformed(NamedTuple):
    """What Haiku's `transform` returns."""

    init: Any
    apply: Any


def transformed() -> Transformed:
    def init(key: Any, x: Any) -> Any:
        return {"mlp/~/linear_0": {"w": jax.random.normal(key, (x.shape[1], 3)), "b": jnp.zeros(3)}}

    def apply(params: Any, rng: Any, x: Any) -> Any:
        assert rng is None
        return x @ params["mlp/~/linear_0"]["w"]

    return Transformed(init, apply)


def linen_variables() -> Any:
    return Linen().init(jax.random.key(0), X, train=False)


def train_state() -> TrainState:
    class Plain(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.Dense(3)(x)

    module = Plain()
    params = module.init(jax.random.key(0), X)["params"]
    return TrainState.create(apply_fn=module.apply, params=params, tx=optax.sgd(0.1))


MODELS = {
    jax_kinds.LINEN: (Linen, ["Dense_0.kernel", "Dense_1.kernel"]),
    jax_kinds.LINEN_WITH_VARIABLES: (lambda: (linen_variables(), Linen()), ["Dense_0.kernel", "Dense_1.kernel"]),
    jax_kinds.NNX: (lambda: Nnx(nnx.Rngs(0)), ["layers.0.kernel", "layers.1.kernel"]),
    jax_kinds.EQUINOX: (lambda: Equinox(jax.random.key(0)), ["first.weight"]),
    jax_kinds.EQUINOX_WITH_STATE: (lambda: eqx.nn.make_with_state(Stateful)(jax.random.PRNGKey(0)), ["layer.weight"]),
    jax_kinds.EQUINOX_PARTITION: (
        lambda: eqx.partition(Equinox(jax.random.key(0)), eqx.is_array),
        ["first.weight"],
    ),
    jax_kinds.TRANSFORMED: (transformed, ["mlp/~/linear_0.w"]),
    jax_kinds.TRAIN_STATE: (train_state, ["Dense_0.kernel"]),
    jax_kinds.PAIR: (lambda: ({"w": jnp.ones((6, 3))}, lambda params, x: x @ params["w"]), ["w"]),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_is_known_computes_under_vmap_and_comes_back_as_it_was_given(kind: str):
    make, names = MODELS[kind]
    thing = make()
    assert jax_kind(thing) == kind
    model = jax_model(thing, 0, X)
    assert list(jax_prunable(model.tree, fixed=model.fixed)) == names
    network, params = jax_network(model.tree, model.apply, model.fixed)
    outputs = jax.jit(network.apply)(params, X)
    assert outputs.shape == (4, 3)
    np.testing.assert_array_equal(jax.jit(network.apply)(params, X), outputs)
    stacked = {name: jnp.stack([value, value]) for name, value in params.items()}
    population = jax.jit(jax.vmap(network.apply, (0, None)))(stacked, X)
    np.testing.assert_allclose(population[1], outputs, rtol=1e-5, atol=1e-6)
    given = model.given(rebuild(model.tree, {names[0]: jnp.zeros_like(params[names[0]])}))
    assert type(given) is (dict if kind in (jax_kinds.LINEN, jax_kinds.TRANSFORMED) else type(thing))
    again = jax_model(thing if kind in (jax_kinds.LINEN, jax_kinds.TRANSFORMED) else given, 0, X)
    assert leaf_names(again.tree) == leaf_names(model.tree)


def test_statistics_of_linen_are_fixed_and_have_their_collection_in_their_names():
    model = jax_model(Linen(), 0, X)
    network, params = jax_network(model.tree, model.apply, model.fixed)
    assert set(params) - set(network.evolved) == {"batch_stats.BatchNorm_0.mean", "batch_stats.BatchNorm_0.var"}


def test_a_linen_module_has_the_weights_of_its_seed():
    one, other = (jax_model(Linen(), seed, X).tree["Dense_0"]["kernel"] for seed in (0, 1))
    np.testing.assert_array_equal(one, linen_variables()["params"]["Dense_0"]["kernel"])
    assert not np.array_equal(one, other)


def test_shapes_of_a_batch_are_enough_for_names_and_shapes():
    model = jax_model(Linen(), 0, jax.ShapeDtypeStruct((1, 6), "float32"))
    assert model.tree["Dense_0"]["kernel"].shape == (6, 8)


def test_only_params_of_nnx_are_evolved_and_the_module_keeps_its_mode():
    module = Nnx(nnx.Rngs(0))
    model = jax_model(module)
    network, params = jax_network(model.tree, model.apply, model.fixed)
    assert "norm.scale" in network.evolved
    assert {"norm.mean", "norm.var", "dropout.rngs.count"} <= set(params) - set(network.evolved)
    assert not model.given(model.tree).dropout.deterministic and model.shown(model.tree).dropout.deterministic
    assert not module.dropout.deterministic


def test_dropout_is_off_whatever_mode_a_module_is_in():
    for thing in (Nnx(nnx.Rngs(0)), Equinox(jax.random.key(0)), (linen_variables(), Linen().apply)):
        model = jax_model(thing)
        np.testing.assert_array_equal(model.apply(model.tree, X), model.apply(model.tree, X))
    assert not jax_model(Equinox(jax.random.key(0))).given(Equinox(jax.random.key(0))).dropout.inference


@pytest.mark.parametrize(
    "apply",
    [
        lambda params, x, rng: x @ params["w"],
        lambda params, key, x, train: x @ params["w"] if not train else None,
        partial(lambda scale, params, x: scale * x @ params["w"], 1.0),
        jax.jit(lambda params, x: x @ params["w"]),
        lambda params, x, *, deterministic: x @ params["w"] if deterministic else None,
    ],
)
def test_functions_with_keys_and_switches(apply: Any):
    model = jax_model(({"w": jnp.ones((6, 3))}, apply))
    np.testing.assert_allclose(model.apply(model.tree, X), X @ jnp.ones((6, 3)), rtol=1e-6)


def test_variables_without_params_around_them():
    class Plain(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.Dense(3)(x)

    variables = Plain().init(jax.random.key(0), X)
    model = jax_model((variables["params"], Plain().apply))
    assert leaf_names(model.tree) == ["Dense_0.bias", "Dense_0.kernel"]
    np.testing.assert_array_equal(model.apply(model.tree, X), Plain().apply(variables, X))


def test_trees_of_any_kind_have_names():
    class Pair(NamedTuple):
        w: Any
        none: Any

    @partial(jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=["name"])
    @dataclasses.dataclass
    class Layer:
        w: Any
        name: str

    w = jnp.ones((6, 6), jnp.bfloat16)
    tree = {2: Pair(w, None), 10: [Layer(w, "a"), None], "key": jax.random.key(0), "raw": jax.random.PRNGKey(0)}
    tree = {str(key): value for key, value in tree.items()} | {"layers": {2: w, 10: w}}
    network, params = jax_network(tree, lambda t, x: x @ t["2"].w @ t["10"][0].w + jax.random.normal(t["key"]))
    assert network.evolved == ("10.0.w", "2.w", "layers.2", "layers.10")
    assert jax.jit(network.apply)(params, X).shape == (4, 6)
    assert params["2.w"].dtype == jnp.bfloat16


def test_a_mask_of_a_module_fits_its_variables_and_its_state():
    mask = Mask({"Dense_0.kernel": np.zeros((6, 8))})
    assert not apply_mask(linen_variables(), mask)["params"]["Dense_0"]["kernel"].any()
    state = nnx.state(Nnx(nnx.Rngs(0)))
    masked = apply_mask(state, Mask({"layers.0.kernel": np.zeros((6, 8))}))
    assert not nnx.to_pure_dict(masked)["layers"][0]["kernel"].any()


def test_what_cannot_be_done_is_said():
    with pytest.raises(BadValue, match="Linen has no weights before it has seen a batch"):
        jax_model(Linen())
    with pytest.raises(BadValue, match="Stateful keeps state .*: give .module, state., as equinox.nn.make_with_state"):
        jax_model(Stateful(jax.random.key(0)))
    with pytest.raises(BadValue, match="begins with a function"):
        jax_model((lambda key: {}, lambda params, x: x))
    model = jax_model(Equinox(jax.random.key(0)))
    with pytest.raises(BadValue, match="Equinox module on one example .where it takes whole batches, give the pair"):
        model.apply(model.tree, X.reshape(2, 2, 6))
    with pytest.raises(BadValue, match="with 'params'"):
        jax_model(({"kernel": X}, Linen()))
    with pytest.raises(BadValue, match="with state: give the pair"):
        jax_model(Transformed(lambda key, x: ({}, {}), lambda params, state, rng, x: (x, state)), 0, X)
