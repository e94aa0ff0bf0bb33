"""JAX pytrees: names of leaves, and masks under transformations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from pruning.errors import MaskMismatch
from pruning.mask import Mask
from pruning.pytrees import apply_mask, leaf_names


class Layer(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


def test_names_of_nested_containers_and_dots_in_keys():
    tree = {"a": [Layer(jnp.ones(2), jnp.ones(1))], "b.c": (jnp.ones(1),)}
    assert leaf_names(tree) == ["a.0.kernel", "a.0.bias", "b.c.0"]
    with pytest.raises(MaskMismatch, match="two leaves .* 'b.c'"):
        leaf_names({"b.c": 1, "b": {"c": 2}})


def test_a_mask_works_under_jit_vmap_and_grad():
    mask = Mask({"w": [1, 0, 1]})

    def loss(tree):
        return (apply_mask(tree, mask)["w"] ** 2).sum()

    tree = {"w": jnp.array([1.0, 2.0, 3.0])}
    assert jax.jit(loss)(tree) == 10.0
    assert jax.grad(loss)(tree)["w"].tolist() == [2.0, 0.0, 6.0]
    stacked = {"w": jnp.ones((4, 3))}
    assert jax.vmap(loss)(stacked).tolist() == [2.0] * 4


def test_names_and_shapes_that_do_not_fit_are_errors():
    with pytest.raises(MaskMismatch, match="closest: dense.kernel"):
        apply_mask({"dense": {"kernel": jnp.ones(2)}}, Mask({"dense.kernle": [1, 0]}))
    with pytest.raises(MaskMismatch, match="shape"):
        apply_mask({"w": jnp.ones(2)}, Mask({"w": [1, 0, 1]}))
