"""Rules of a population one by one: each gives what `jax.vmap` gives, and leaves the data in the order it lies in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from es.population import layout, pooling
from es.population.interpreter import RULES, Context
from es.population.values import MEMBER, Members, canonical

POPULATION = jnp.zeros((5, 1))
ORDER = (1, MEMBER, 0)


def applied(rule: Any, function: Any, array: jax.Array) -> Members | None:
    """Return what a rule makes of a function's only operation on arrays [P, a, b] that lie as [b, P, a]."""
    (equation,) = jax.make_jaxpr(function)(array[0]).jaxpr.eqns
    assert RULES[equation.primitive.name] is rule
    lying = Members(array.transpose(2, 0, 1), ORDER)
    operands = [getattr(atom, "val", lying) for atom in equation.invars]
    return rule(Context(POPULATION), equation, operands)


CASES = {
    "a product": (layout.elementwise, lambda x: lax.mul(x, x)),
    "a root": (layout.elementwise, lambda x: lax.sqrt(x)),
    "a slice": (layout.along_axes, lambda x: lax.slice(x, (1, 0), (3, 4), (1, 2))),
    "reversed": (layout.along_axes, lambda x: lax.rev(x, (0,))),
    "padded": (layout.along_axes, lambda x: lax.pad(x, 7.0, ((1, 2, 0), (0, 0, 1)))),
    "joined": (layout.along_axes, lambda x: lax.concatenate([x, x], 1)),
    "summed up": (layout.along_axes, lambda x: lax.cumsum(x, 1)),
    "the largest": (pooling.named_window, lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID")),
    "sums": (pooling.named_window, lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1), (1, 1), "SAME")),
    "at least a half": (pooling.general_window, lambda x: lax.reduce_window(x, 0.5, lax.max, (2, 2), (1, 1), "VALID")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_gives_what_every_member_alone_would_get(name):
    rule, function = CASES[name]
    array = jnp.asarray(np.random.default_rng(0).random((5, 3, 4)), jnp.float32)
    found = applied(rule, function, array)
    assert found is not None and found.order == ORDER
    np.testing.assert_allclose(found.ordered(canonical(2)), jax.vmap(function)(array), rtol=1e-6)


def test_a_window_with_an_operation_that_no_rule_knows_is_left_to_vmap():
    def product(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, 1.0, lax.mul, (2, 2), (1, 1), "VALID")

    assert applied(pooling.general_window, product, jnp.ones((5, 3, 4))) is None
