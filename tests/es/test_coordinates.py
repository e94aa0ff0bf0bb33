"""The space that a mask leaves: packing and unpacking lose nothing and invent nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from es.coordinates import Space, pack, positions, replaced, spread, unpack
from pruning.mask import Mask


@st.composite
def networks(draw):
    shapes = draw(st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4))
    rng = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**16))))
    params = {f"p{i}": np.asarray(rng.standard_normal(shape), np.float32) for i, shape in enumerate(shapes)}
    masked = {name: rng.random(a.shape) < 0.6 for name, a in params.items() if draw(st.booleans()) or name == "p0"}
    return params, Mask(masked)


@settings(max_examples=60, deadline=None)
@given(networks())
def test_unpack_is_the_masked_network_and_pack_its_inverse(network):
    params, mask = network
    space = Space.of(params, tuple(params))
    where = positions(space, mask)
    vector = pack(space, where, params)
    assert len(vector) == mask.kept + sum(a.size for n, a in params.items() if n not in mask)
    expected = mask.apply(params)
    for name, array in unpack(space, where, jnp.asarray(vector)).items():
        assert array.shape == params[name].shape
        assert np.array_equal(array, expected[name])
    for name, array in spread(space, where, vector).items():
        assert np.array_equal(array, expected[name])
    assert np.array_equal(pack(space, where, expected), vector)


def test_only_what_is_evolved_takes_part():
    params = {"w": np.ones((2, 2), np.float32), "frozen": np.ones(3, np.float32), "b": np.ones(1, np.float32)}
    space = Space.of(params, ("w", "b"))
    assert space.size == 5 and space.offsets == (0, 4)
    assert positions(space, Mask({"w": [[0, 1], [0, 0]]})).tolist() == [1, 4]


def test_other_precisions_are_searched_in_float32_and_come_back_as_they_were():
    params = {"half": np.ones((2,), ml_dtypes.bfloat16), "double": np.ones((2,), np.float64)}
    space = Space.of(params, ("half", "double"))
    assert space.dtypes == ("bfloat16", "float32")
    unpacked = unpack(space, np.arange(4, dtype=np.int32), jnp.arange(4.0))
    assert unpacked["half"].dtype == jnp.bfloat16
    back = replaced(params, unpacked)
    assert [back[n].dtype for n in ("half", "double")] == [params[n].dtype for n in ("half", "double")]


def test_unpack_works_over_a_population():
    space = Space.of({"w": np.zeros((2, 2), np.float32)}, ("w",))
    many = jax.jit(jax.vmap(lambda v: unpack(space, jnp.array([0, 3]), v)))(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    assert many["w"].tolist() == [[[1, 0], [0, 2]], [[3, 0], [0, 4]]]
