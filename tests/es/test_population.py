"""A population evaluated together gives every member the outputs that it has alone."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.typing import NDArray

from es.coordinates import Space, positions, unpack
from es.population import population_outputs
from es.population.chunks import at_once
from es.population.examples import example_axes
from es.population.tables import fan_in, panels
from pruning.mask import Mask

Arrays = dict[str, NDArray[Any]]
Apply = Callable[[Mapping[str, jax.Array], Any], Any]


def arrays(rng: np.random.Generator, **shapes: tuple[int, ...]) -> Arrays:
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def random_mask(rng: np.random.Generator, params: Arrays, density: float) -> Mask:
    return Mask({name: rng.random(value.shape) < density for name, value in params.items() if value.ndim > 1})


def plain(apply: Apply, space: Space, where: NDArray[np.int32], population: jax.Array, fixed: Any, inputs: Any) -> Any:
    return jax.vmap(lambda v: apply({**fixed, **unpack(space, where, v)}, inputs))(population)


def check(
    apply: Apply,
    params: Arrays,
    inputs: Any,
    mask: Mask | None = None,
    fixed: Arrays | None = None,
    members: int = 5,
    **options: Any,
) -> None:
    rng = np.random.default_rng(1)
    space = Space.of(params, tuple(params))
    where = np.arange(space.size, dtype=np.int32) if mask is None else positions(space, mask)
    population = jnp.asarray(rng.standard_normal((members, len(where))), jnp.float32)
    ours = jax.jit(lambda p, f, x: population_outputs(apply, space, where, p, f, x, **options))
    got, want = ours(population, fixed or {}, inputs), plain(apply, space, where, population, fixed or {}, inputs)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.shape == w.shape and g.dtype == w.dtype
        scale = np.sqrt(np.mean(np.square(np.asarray(w, np.float64)))) if w.size else 0.0
        np.testing.assert_allclose(g, w, atol=1e-5 * scale + 1e-30, rtol=1e-5)


# ---- networks


def mlp(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ p["a"].T + p["b"]) @ p["c"] + p["d"]


MLP = {"a": (20, 12), "b": (20,), "c": (20, 7), "d": (7,)}


def cnn(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    x = jax.nn.relu(lax.conv_general_dilated(x, p["w"], (1, 1), "SAME") + p["b"][:, None, None])
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jax.nn.relu(lax.conv_general_dilated(x, p["v"], (1, 1), "SAME") + p["c"][:, None, None])
    x = lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4
    return x.reshape(x.shape[0], -1) @ p["d"].T


CNN = {"w": (4, 2, 3, 3), "b": (4,), "v": (3, 4, 5, 5), "c": (3,), "d": (6, 27)}


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.02])
@pytest.mark.parametrize("members", [1, 5])
@pytest.mark.parametrize("batch", [1, 9])
def test_an_mlp_gives_every_member_its_own_outputs(density: float, members: int, batch: int) -> None:
    rng = np.random.default_rng(0)
    params = arrays(rng, **MLP)
    inputs = jnp.asarray(rng.standard_normal((batch, 12)), jnp.float32)
    check(mlp, params, inputs, random_mask(rng, params, density), members=members)


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("members", [1, 3])
def test_a_cnn_gives_every_member_its_own_outputs(density: float, members: int) -> None:
    rng = np.random.default_rng(0)
    params = arrays(rng, **CNN)
    inputs = jnp.asarray(rng.standard_normal((4, 2, 12, 13)), jnp.float32)
    check(cnn, params, inputs, random_mask(rng, params, density), members=members)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((2, 1), (0, 3)), ((6, 6), (1, 1)), ((-1, 0), (0, -1))])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_of_every_geometry(stride: int, padding: Any, dilation: int) -> None:
    rng = np.random.default_rng(0)

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        x = lax.conv_general_dilated(x, p["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return lax.conv_general_dilated(
            x, p["v"], (stride, 1), padding, (1, 1), (dilation, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    params = arrays(rng, w=(3, 3, 2, 6), v=(3, 2, 6, 2))
    check(net, params, jnp.asarray(rng.standard_normal((3, 9, 11, 2)), jnp.float32), random_mask(rng, params, 0.5))


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_transposed_and_one_dimensional_convolutions(groups: int) -> None:
    rng = np.random.default_rng(0)

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        x = lax.conv_general_dilated(x, p["w"], (1,), "SAME", feature_group_count=2)
        x = lax.conv_general_dilated(x, p["v"], (2,), "SAME", feature_group_count=groups)
        x = lax.conv_general_dilated(x, p["u"], (1,), ((2, 2),), lhs_dilation=(3,))
        return lax.conv_general_dilated(x, p["t"] * 2, (1,), "SAME")

    params = arrays(rng, w=(4, 2, 3), v=(8, 4 // groups, 5), u=(3, 8, 4), t=(2, 3, 1))
    check(net, params, jnp.asarray(rng.standard_normal((3, 4, 11)), jnp.float32), random_mask(rng, params, 0.6))


@pytest.mark.parametrize("window", [(2, 2, "VALID"), (3, 2, "SAME"), (3, 1, ((1, 1), (0, 2))), (9, 9, "VALID")])
def test_pooling_of_every_geometry(window: Any) -> None:
    rng = np.random.default_rng(0)
    length, stride, padding = window
    pads = padding if isinstance(padding, str) else ((0, 0), (0, 0), *padding)
    size, step = (1, 1, length, length), (1, 1, stride, stride)

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> Any:
        x = x * p["scale"][:, None, None]
        most = lax.reduce_window(x, -jnp.inf, lax.max, size, step, pads)
        total = lax.reduce_window(x, 0.0, lax.add, size, step, pads)
        least = lax.reduce_window(x, jnp.float32(0.5), lambda a, b: jnp.minimum(a, b), size, step, pads)
        return most, total, least, lax.reduce_window(x, 1.0, lax.mul, size, step, pads)

    check(net, arrays(rng, scale=(3,)), jnp.asarray(rng.standard_normal((2, 3, 9, 10)), jnp.float32))


def test_frozen_batch_norm_residuals_and_global_pooling() -> None:
    rng = np.random.default_rng(0)

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        def norm(y: jax.Array) -> jax.Array:
            y = (y - p["mean"][:, None, None]) * lax.rsqrt(p["var"][:, None, None] + 1e-5)
            return y * p["gamma"][:, None, None] + p["beta"][:, None, None]

        h = lax.conv_general_dilated(x, p["w"], (1, 1), "SAME")
        h = h + jax.nn.silu(norm(lax.conv_general_dilated(jax.nn.relu(norm(h)), p["v"], (1, 1), "SAME")))
        return jnp.pad(h, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, :, ::2].mean((2, 3)) @ p["d"]

    params = arrays(rng, w=(4, 2, 3, 3), v=(4, 4, 3, 3), gamma=(4,), beta=(4,), d=(6, 5))
    fixed = {"mean": np.ones(4, np.float32), "var": np.full(4, 2, np.float32)}
    inputs = jnp.asarray(rng.standard_normal((5, 2, 6, 6)), jnp.float32)
    check(net, params, inputs, random_mask(rng, params, 0.4), fixed)


def test_batch_statistics_see_the_whole_batch() -> None:
    rng = np.random.default_rng(0)

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        h = x @ p["w"]
        return (h - h.mean(0)) / (h.std(0) + 1) + x.shape[0]

    params, inputs = arrays(rng, w=(6, 4)), jnp.asarray(rng.standard_normal((128, 6)), jnp.float32)
    check(net, params, inputs, members_at_once=2, examples_at_once=16)


def test_attention_embeddings_and_layer_norm() -> None:
    rng = np.random.default_rng(0)

    def net(p: Mapping[str, jax.Array], tokens: jax.Array) -> jax.Array:
        h = p["embed"][tokens]
        h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)
        q, k, v = jnp.split(h @ p["qkv"], 3, axis=-1)
        q, k, v = (a.reshape(*a.shape[:2], 2, 4).transpose(0, 2, 1, 3) for a in (q, k, v))
        scores = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(4), axis=-1)
        mixed = jnp.einsum("bhqk,bhkd->bqhd", scores, v)
        return jnp.einsum("bqhd,hdo->bqo", mixed, p["out"]) @ p["embed"].T

    params = arrays(rng, embed=(11, 8), qkv=(8, 24), out=(2, 4, 8))
    tokens = jnp.asarray(rng.integers(0, 11, (3, 6)))
    check(net, params, tokens, random_mask(rng, params, 0.5))


def test_a_weight_used_twice_in_an_operation_without_a_rule_and_a_scalar() -> None:
    rng = np.random.default_rng(0)

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> dict[str, jax.Array]:
        h = jnp.tanh(x @ p["w"]) @ p["w"].T * p["scale"]
        order = jnp.sort(p["w"], axis=0)
        return {
            "tied": h,
            "norm": jnp.linalg.norm(p["w"]) + order.sum(),
            "normed": x @ (p["w"] / jnp.linalg.norm(p["w"], axis=0)),
            "weight": p["w"].T[::-1, 1:].reshape(-1),
            "both": jnp.concatenate([p["w"], p["w"] * 2, jnp.ones((1, 4))]),
            "gram": p["w"].T @ p["w"],
            "fixed": x.sum(),
        }

    params = arrays(rng, w=(6, 4), scale=())
    check(net, params, jnp.asarray(rng.standard_normal((5, 6)), jnp.float32), random_mask(rng, params, 0.5))


def test_control_flow_and_custom_derivatives() -> None:
    rng = np.random.default_rng(0)

    @jax.custom_vjp
    def twice(x: jax.Array) -> jax.Array:
        return 2 * x

    twice.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        h, _ = lax.scan(lambda c, _: (jnp.tanh(c @ p["w"]), None), x, length=3)
        h = lax.cond(x.sum() > 0, lambda a: a + 1, lambda a: a - 1, h)
        h = lax.while_loop(lambda c: c.sum() > 10, lambda c: c * 0.5, h)
        return twice(jax.checkpoint(jax.nn.gelu)(h)) @ p["w"]

    params = arrays(rng, w=(6, 6))
    check(net, params, jnp.asarray(rng.standard_normal((5, 6)), jnp.float32), random_mask(rng, params, 0.5))


# ---- masks


def test_masks_with_empty_rows_columns_and_layers() -> None:
    rng = np.random.default_rng(0)
    params, inputs = arrays(rng, **MLP), jnp.asarray(rng.standard_normal((9, 12)), jnp.float32)
    holes = rng.random((20, 12)) < 0.5
    holes[3], holes[10:], holes[:, 5:] = False, False, False
    check(mlp, params, inputs, Mask({"a": holes, "c": rng.random((20, 7)) < 0.5}))
    check(mlp, params, inputs, Mask({"a": np.zeros((20, 12), bool)}))
    check(mlp, params, inputs, Mask({"c": np.zeros((20, 7), bool)}))
    single = {name: np.zeros(shape, bool) for name, shape in MLP.items()}
    single["c"][2, 3] = True
    check(mlp, params, inputs, Mask(single))


@pytest.mark.parametrize("density", [1.0, 0.2, 0.02])
def test_wide_layers_use_every_formulation(density: float) -> None:
    rng = np.random.default_rng(0)
    params = arrays(rng, a=(300, 200), b=(300,), c=(300, 128), d=(128,))
    mask = {"a": rng.random((300, 200)) < density, "c": rng.random((300, 128)) < density}
    mask["a"][:20] = True
    check(mlp, params, jnp.asarray(rng.standard_normal((64, 200)), jnp.float32), Mask(mask), members=16)


def test_tables_hold_every_weight_once() -> None:
    rng = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.3, 1.0):
        alive = rng.random((37, 23)) < density
        alive[:5] |= rng.random((5, 23)) < 0.8
        slots = np.where(alive, np.cumsum(alive).reshape(alive.shape) - 1, -1).astype(np.int32)
        tables = fan_in(slots)
        held = np.concatenate([bucket.slots.ravel() for bucket in tables.buckets])
        assert sorted(held[held >= 0]) == list(range(alive.sum()))
        assert all(((b.columns == 23) == (b.slots < 0)).all() for b in tables.buckets)
        cut = panels(slots, 8)
        assert sorted(cut.slots[cut.slots >= 0]) == list(range(alive.sum()))


# ---- members, chunks and memory


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 7])
@pytest.mark.parametrize("examples", [None, 4, 5])
def test_chunks_keep_the_order_of_members_and_examples(at_a_time: int, examples: int | None) -> None:
    rng = np.random.default_rng(0)
    params, inputs = arrays(rng, **MLP), jnp.asarray(rng.standard_normal((12, 12)), jnp.float32)
    mask = random_mask(rng, params, 0.5)
    check(mlp, params, inputs, mask, members=7, members_at_once=at_a_time, examples_at_once=examples)
    params, images = arrays(rng, **CNN), jnp.asarray(rng.standard_normal((8, 2, 12, 12)), jnp.float32)
    check(cnn, params, images, members=3, members_at_once=min(at_a_time, 3), examples_at_once=examples)


def test_a_member_with_nan_leaves_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    params, inputs = arrays(rng, **CNN), jnp.asarray(rng.standard_normal((4, 2, 12, 12)), jnp.float32)
    space = Space.of(params, tuple(params))
    where = positions(space, random_mask(rng, params, 0.3))
    population = jnp.asarray(rng.standard_normal((5, len(where))), jnp.float32)
    ours = jax.jit(lambda p: population_outputs(cnn, space, where, p, {}, inputs, members_at_once=2))
    clean, dirty = ours(population), ours(population.at[2].set(jnp.nan))
    np.testing.assert_array_equal(np.delete(clean, 2, 0), np.delete(dirty, 2, 0))
    assert np.isnan(dirty[2]).all()


def test_inf_in_an_unused_input_harms_no_output() -> None:
    rng = np.random.default_rng(0)
    params = arrays(rng, w=(64, 40))
    alive = rng.random((64, 40)) < 0.05
    alive[:, [0, 7]] = False
    space = Space.of(params, ("w",))
    where = positions(space, Mask({"w": alive}))
    inputs = jnp.asarray(rng.standard_normal((16, 40)), jnp.float32).at[:, 0].set(jnp.inf).at[:, 7].set(jnp.nan)
    population = jnp.asarray(rng.standard_normal((8, len(where))), jnp.float32)
    assert np.isfinite(population_outputs(lambda p, x: x @ p["w"].T, space, where, population, {}, inputs)).all()


def test_an_unknown_mask_and_a_loop_around_it() -> None:
    rng = np.random.default_rng(0)
    params, inputs = arrays(rng, **MLP), jnp.asarray(rng.standard_normal((9, 12)), jnp.float32)
    space = Space.of(params, tuple(params))
    where = positions(space, random_mask(rng, params, 0.5))
    population = jnp.asarray(rng.standard_normal((5, len(where))), jnp.float32)

    def repeated(at: jax.Array, members: jax.Array) -> jax.Array:
        def body(_: int, out: jax.Array) -> jax.Array:
            return out + population_outputs(mlp, space, at, members, {}, inputs)

        return lax.fori_loop(0, 2, body, jnp.zeros((5, 9, 7)))

    want = 2 * plain(mlp, space, where, population, {}, inputs)
    np.testing.assert_allclose(jax.jit(repeated)(where, population), want, rtol=1e-4, atol=1e-4)


def test_low_precision_parameters_and_outputs() -> None:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((12, 5)).astype(jnp.bfloat16)}
    space = Space.of(params, ("w",))
    where = positions(space, Mask({"w": rng.random((12, 5)) < 0.6}))
    population = jnp.asarray(rng.standard_normal((4, len(where))), jnp.float32)
    inputs = jnp.asarray(rng.standard_normal((9, 12)), jnp.bfloat16)

    def net(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        return jnp.matmul(x, p["w"], preferred_element_type=jnp.float32)

    got = population_outputs(net, space, where, population, {}, inputs)
    want = plain(net, space, where, population, {}, inputs)
    assert got.dtype == want.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_memory_follows_the_survivors_and_not_the_dense_weights() -> None:
    rng = np.random.default_rng(0)
    members, examples, survivors = 64, 32, 2000

    def bytes_held(width: int) -> int:
        params = {"w": np.zeros((128, width), np.float32)}
        space = Space.of(params, ("w",))
        where = np.sort(rng.choice(space.size, survivors, replace=False)).astype(np.int32)
        ours = jax.jit(lambda p, x: population_outputs(lambda q, a: a @ q["w"].T, space, where, p, {}, x))
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((members, survivors), (examples, width))]
        analysis = ours.lower(*shapes).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    narrow, wide = bytes_held(256), bytes_held(8192)
    assert wide < narrow + 4 * 4 * examples * 8192 < members * 128 * 8192


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from es.coordinates import Space
from es.population import population_outputs

space = Space.of({"w": np.zeros((6, 4), np.float32)}, ("w",))
where = np.arange(0, 24, 2)
population = jax.random.normal(jax.random.key(0), (8, 12))
inputs = jax.random.normal(jax.random.key(1), (5, 6))
mesh = Mesh(np.array(jax.devices()), ("members",))
spread = jax.device_put(population, NamedSharding(mesh, PartitionSpec("members")))
run = lambda p: population_outputs(lambda q, x: jnp.tanh(x @ q["w"]), space, where, p, {}, inputs, members_at_once=4)
program = jax.jit(run).lower(spread).compile()
# sums of terms of size 1, some of which cancel: what is left of those is rounding, relative to 1 and not to itself
np.testing.assert_allclose(program(spread), run(population), rtol=1e-5, atol=1e-6)
assert program(spread).sharding.spec == PartitionSpec("members")
assert not any(word in program.as_text() for word in ("all-gather", "all-to-all", "collective-permute"))
"""


def test_members_spread_over_devices_stay_there() -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=os.environ | flags, check=True)


def test_members_of_a_chunk_are_few_left_over() -> None:
    for members in range(1, 140):
        for room in (0.2, 1, 7.5, 40, 1000):
            size = at_once(members, room)
            assert 1 <= size <= max(1, min(members, room))
            assert -(-members // size) == -(-members // max(1, min(members, int(room)))) or members % size == 0


def test_which_networks_treat_examples_apart() -> None:
    def axes(function: Callable[[jax.Array], jax.Array], *shape: int) -> Any:
        return example_axes(jax.make_jaxpr(function)(jnp.ones(shape)).jaxpr, [0])

    weight = jnp.ones((3, 4))
    assert axes(lambda x: jax.nn.softmax(x @ weight), 6, 3) == [0]
    assert axes(lambda x: (weight.T @ x.T)[:, None], 6, 3) == [2]
    assert axes(lambda x: x.reshape(6, -1).sum(1), 6, 3, 2) == [0]
    assert axes(lambda x: x.T @ x, 6, 3) is None
    assert axes(lambda x: x - x.mean(0), 6, 3) is None
    assert axes(lambda x: x[::-1], 6, 3) is None
    assert axes(lambda x: jnp.sort(x, 1), 6, 3) is None
    assert axes(lambda x: x.reshape(3, -1), 6, 3) is None
    assert axes(lambda x: x + jnp.arange(6.0)[:, None], 6, 3) is None
