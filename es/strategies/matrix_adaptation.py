"""Matrix adaptation: the factor of the covariance, whole or as a few directions."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from evosax.algorithms import LM_MA_ES, MA_ES

from es.strategies import State, Strategy, strategy
from es.strategies._evosax import OWN, adapt, elite_ratio, matrices, rate, replaced
from es.strategies._ties import share_weights_and_mass
from es.strategies.cma import STEP_SIZE, with_elites


def _best_first(population: jax.Array, fitness: jax.Array, state: State) -> tuple[jax.Array, jax.Array, State]:
    """Return members in the order of their fitness.

    evosax adapts the matrix with the weights of ranks 1, 2, ... on members in the order of sampling, so that it learns
    nothing from the fitness; in the order of fitness the weights meet the members that they are for.
    """
    order = jnp.argsort(fitness)
    return population[order], fitness[order], state.replace(z=state.z[order])


@strategy(
    "ma-es",
    source="Beyer & Sendhoff 2017 (https://ieeexplore.ieee.org/document/7875115)",
    distribution="full",
    settings={"elite_ratio": elite_ratio(0.5), **STEP_SIZE, "c_1": rate(OWN), "c_mu": rate(OWN)},
    # one outer product for each member, M before and after
    memory=matrices(lambda population: population + 2),
    instead="'lm-ma-es', which keeps a few directions only, or 'sep-cma-es'",
)
def ma_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Matrix adaptation: CMA-ES without a decomposition of the covariance."""
    algorithm = MA_ES(population, jnp.zeros(dims))
    params = replaced(with_elites(algorithm, sigma, values), values, [*STEP_SIZE, "c_1", "c_mu"])
    # x = mean + std · M z
    return adapt(
        algorithm,
        params,
        lambda state: state.std * jnp.linalg.norm(state.M, axis=1),
        ties=share_weights_and_mass,
        before_tell=_best_first,
    )


@strategy(
    "lm-ma-es",
    source="Loshchilov, Glasmachers & Beyer 2017 (arXiv 1705.06693)",
    distribution="low-rank",
    settings={"elite_ratio": elite_ratio(0.5), **STEP_SIZE},
)
def lm_ma_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Limited-memory matrix adaptation: 4 + 3 ln D directions instead of a matrix.

    The rates of the directions are P / (4^i D), at most 1 here: evosax has NaN where the population is more than twice
    the number of weights.
    """
    algorithm = LM_MA_ES(population, jnp.zeros(dims))
    params = replaced(with_elites(algorithm, sigma, values), values, STEP_SIZE)
    params = params.replace(c_c=jnp.minimum(params.c_c, 1))

    def std(state: State) -> jax.Array:
        # a member is mean + std · F_m ... F_1 z with F_i = (1 - c_i) I + c_i m_i m_iᵀ, and F_m ... F_1 = αI + U Vᵀ
        used = jnp.where(jnp.arange(algorithm.m) < state.generation_counter, params.c_d, 0)
        scale = jnp.float32(1)
        left = jnp.zeros((dims, 0))
        right = jnp.zeros((dims, 0))
        for c, m in zip(used, state.M, strict=True):
            right = jnp.column_stack([right, scale * m + right @ (left.T @ m)])
            left = jnp.column_stack([(1 - c) * left, c * m])
            scale = (1 - c) * scale
        # the norm of each row of αI + U Vᵀ
        square = (
            scale**2 + 2 * scale * jnp.sum(left * right, axis=1) + jnp.sum((left @ (right.T @ right)) * left, axis=1)
        )
        return state.std * jnp.sqrt(jnp.maximum(square, 0))

    return adapt(algorithm, params, std, ties=share_weights_and_mass, before_tell=_best_first)
