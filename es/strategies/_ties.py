"""Members that are equally good: what their ranks earn is shared among them, whichever of them comes first.

A strategy that recombines by rank gives the members of ranks r, r + 1, … the weights w_r, w_(r+1), … Where these
members tie, their ranks are a matter of chance, and each gets the mean of what the tie has together: the mean over all
orders. The sum stays what it was, and without ties nothing changes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def failed_are_worst(fitness: jax.Array) -> jax.Array:
    """Return the fitness [P] with members that are not finite a little worse than the worst of the others.

    Little, because some strategies learn from differences of the fitness. Where no member is finite, all are alike.

    >>> ranks = jnp.argsort(failed_are_worst(jnp.array([jnp.nan, 0.0, -1.0, 0.0])))
    >>> ranks.tolist()
    [2, 1, 3, 0]
    """
    finite = jnp.isfinite(fitness)
    worst = jnp.max(jnp.where(finite, fitness, -jnp.inf))
    worst = jnp.where(finite.any(), worst, 0)
    margin = jnp.maximum(4 * jnp.finfo(jnp.float32).eps * jnp.abs(worst), 1e-30)
    return jnp.where(finite, fitness, jnp.minimum(worst + margin, jnp.finfo(jnp.float32).max))


def differ(fitness: jax.Array, state: Any = None) -> jax.Array:
    """Say whether any member is better than another; if none is, a generation teaches nothing."""
    del state
    return jnp.any(fitness != fitness[0])


def ranks(fitness: jax.Array) -> jax.Array:
    """Return the rank of each member, 0 for the best, [P] int32; the first of equally good ones has the smallest."""
    order = jnp.argsort(fitness)
    return jnp.zeros_like(order).at[order].set(jnp.arange(fitness.size), unique_indices=True)


def shared(values: jax.Array, fitness: jax.Array) -> jax.Array:
    """Return for each member the mean of `values` [P] or [P, F] over all members that are as good.

    >>> shared(jnp.array([0.5, 0.3, 0.2]), jnp.array([1.0, 2.0, 2.0])).tolist()
    [0.5, 0.25, 0.25]
    """
    alike = (fitness[:, None] == fitness).astype(jnp.float32)
    # A member that is alone gets its own value bit by bit: 1 · value + 0 + 0 + …, without TF32's rounding.
    total = jnp.dot(alike, values, precision=jax.lax.Precision.HIGHEST)
    count = alike.sum(axis=1)
    return total / (count if values.ndim == 1 else count[:, None])


def earned(weights: jax.Array, fitness: jax.Array) -> jax.Array:
    """Return each member's share of `weights` [P], which are those of ranks 0, 1, 2, …"""
    return shared(weights[ranks(fitness)], fitness)


def by_rank(weights: jax.Array, fitness: jax.Array) -> jax.Array:
    """Return the weights of ranks 0, 1, 2, …, shared among the ranks of equally good members.

    evosax gives a member the weight of its average rank, rounded down. That rank is one of its tie, and all of them
    have the same weight here.

    >>> by_rank(jnp.array([0.5, 0.3, 0.2]), jnp.array([2.0, 1.0, 2.0])).tolist()
    [0.5, 0.25, 0.25]
    """
    return shared(weights, jnp.sort(fitness))


def share_weights(params: Any, fitness: jax.Array) -> Any:
    """Return evosax's parameters with the weights of ranks shared among ties.

    >>> from evosax.algorithms import SimpleES
    >>> params = SimpleES(4, jnp.zeros(1)).default_params
    >>> share_weights(params, jnp.array([1.0, 2.0, 2.0, 3.0])).weights.tolist()
    [0.5, 0.25, 0.25, 0.0]
    """
    return params.replace(weights=by_rank(params.weights, fitness))


def share_weights_and_mass(params: Any, fitness: jax.Array) -> Any:
    """Return evosax's parameters with the weights of ranks shared among ties, and the selection mass that they have.

    An evolution path is scaled with √μ_eff = 1 / |w|, so that it has unit variance where selection is by chance. Shared
    weights are more even and have a larger μ_eff; with the old one, every tie would shorten the path and with it the
    step size.
    """
    old, new = params.weights, by_rank(params.weights, fitness)
    return params.replace(weights=new, mu_eff=params.mu_eff * mass_gain(old, new))


def mass_gain(old: jax.Array, new: jax.Array) -> jax.Array:
    """Return by how much the selection mass of the positive weights grows from `old` to `new`.

    >>> float(mass_gain(jnp.array([1.0, 0.0, -0.5]), jnp.array([0.5, 0.5, -0.5])))
    2.0
    """
    return jnp.sum(jnp.maximum(old, 0) ** 2) / jnp.sum(jnp.maximum(new, 0) ** 2)


def nearest_best(population: jax.Array, fitness: jax.Array, mean: jax.Array) -> jax.Array:
    """Return the best member, [D]; of equally good ones the one that is nearest to the mean.

    >>> population = jnp.array([[9.0], [2.0], [0.0]])
    >>> nearest_best(population, jnp.array([1.0, 1.0, 5.0]), mean=jnp.zeros(1)).tolist()
    [2.0]
    """
    distance = jnp.sum((population - mean) ** 2, axis=-1)
    return population[jnp.argmin(jnp.where(fitness == jnp.min(fitness), distance, jnp.inf))]
