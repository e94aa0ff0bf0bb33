"""Covariance matrix adaptation: of the whole matrix, of its diagonal, and of a few directions."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from evosax.algorithms import CMA_ES, Rm_ES, Sep_CMA_ES
from evosax.algorithms.distribution_based import cma_es as full
from evosax.algorithms.distribution_based import sep_cma_es as separable
from evosax.core.fitness_shaping import identity_fitness_shaping_fn

from es.strategies import Setting, State, Strategy, strategy
from es.strategies._evosax import (
    OWN,
    adapt,
    count,
    elite_ratio,
    factor,
    matrices,
    nonnegative,
    positive,
    rate,
    replaced,
)
from es.strategies._ties import earned, mass_gain, ranks, share_weights_and_mass

STEP_SIZE = {
    "std_min": nonnegative(0.0),
    "std_max": positive(1e8),
    "mu_eff": Setting(OWN, low=1),
    "c_mean": positive(1.0),
    "c_std": factor(OWN),
    "d_std": positive(OWN),
    "chi_n": positive(OWN),
}
"""The settings of a strategy with cumulative step-size adaptation, by evosax's names."""
COVARIANCE = {"c_c": factor(OWN), "c_1": rate(OWN), "c_mu": rate(OWN)}


def with_elites(algorithm: Any, sigma: float, values: Mapping[str, float]) -> Any:
    """Return the parameters of a CMA-like algorithm, `elite_ratio` and `sigma` set.

    In evosax the elite ratio changes the learning rates but not who is recombined, which is always the better half.
    Here members beyond the elites weigh 0, as in Hansen's tutorial; nothing changes for a ratio of 0.5.

    >>> algorithm = CMA_ES(4, jnp.zeros(2))
    >>> params = with_elites(algorithm, sigma=0.5, values={"elite_ratio": 0.25})
    >>> params.weights[:2].tolist(), float(params.std_init)
    ([1.0, 0.0], 0.5)
    """
    algorithm.elite_ratio = values["elite_ratio"]
    params = algorithm.default_params
    if values["elite_ratio"] != 0.5:
        elite = jnp.arange(algorithm.population_size) < algorithm.num_elites
        gain = jnp.where(elite, jnp.maximum(params.weights, 0), 0)
        params = params.replace(weights=jnp.where(params.weights < 0, params.weights, gain / jnp.sum(gain)))
    return params.replace(std_init=jnp.float32(sigma))


@strategy(
    "cma-es",
    source="Hansen & Ostermeier 2001; Hansen 2016 (arXiv 1604.00772)",
    distribution="full",
    settings={"elite_ratio": elite_ratio(0.5), **STEP_SIZE, **COVARIANCE},
    # C before and after the ask, B, diag(D) or its product with B; the decomposition works on two more
    memory=matrices(lambda population: 6),
    instead="'sep-cma-es', which adapts the diagonal only",
)
def cma_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Covariance matrix adaptation: correlations between all weights."""
    algorithm: Any = CMA_ES(population, jnp.zeros(dims), fitness_shaping_fn=identity_fitness_shaping_fn)
    params = replaced(with_elites(algorithm, sigma, values), values, [*STEP_SIZE, *COVARIANCE])
    algorithm._tell = functools.partial(_learn, algorithm)

    def std(state: State) -> jax.Array:
        _, basis, scale = full.eigen_decomposition(state.C)
        return state.std * jnp.linalg.norm(basis * scale, axis=1)

    return adapt(algorithm, params, std)


def _learn(algorithm: Any, key: jax.Array, population: Any, fitness: Any, state: State, params: Any) -> State:
    """Return the state after a generation: evosax's equations, for two kinds of weights.

    Better members pull the mean and widen the covariance, worse ones narrow it. A tie may reach from the ones to the
    others: each kind of weight is shared by itself, so that those that pull still sum to one.
    """
    del key
    better = earned(jnp.maximum(params.weights, 0), fitness)
    worse = earned(jnp.minimum(params.weights, 0), fitness)
    gain = mass_gain(params.weights, jnp.sort(better, descending=True))
    params = params.replace(mu_eff=params.mu_eff * gain)

    mean, y, y_mean = algorithm.update_mean(population, better, state.mean, state.std, params)
    p_std = algorithm.update_p_std(state.p_std, state.B @ ((state.B.T @ y_mean) / state.D), params)
    length = jnp.linalg.norm(p_std)
    std = algorithm.update_std(state.std, length, params)

    h_std = algorithm.h_std(length, state.generation_counter + 1, params)
    p_c = algorithm.update_p_c(state.p_c, h_std, y_mean, params)
    whitened = (y @ state.B) * (1 / state.D) @ state.B.T
    bounded = algorithm.num_dims / jnp.clip(jnp.sum(jnp.square(whitened), axis=-1), min=1e-8)  # Eq. (46)
    rank_mu = jnp.einsum("i,ij,ik->jk", better + worse * bounded, y, y)
    stalled = algorithm.delta_h_std(h_std, params)
    C = algorithm.update_C(state.C, stalled, algorithm.rank_one(p_c), rank_mu, params)
    return state.replace(mean=mean, std=std, p_std=p_std, p_c=p_c, C=C)


def _separable_c_mu(dims: int, mu_eff: float, c_1: float) -> float:
    """Return the learning rate of a diagonal covariance: (D + 2) / 3 times that of a full one.

    From Ros & Hansen 2008: a diagonal has D numbers to learn instead of D², and can learn that much faster. evosax 0.1
    has it too; evosax 0.3 takes the full matrix's rate, with which 10,000 weights and a population of 128 keep their
    first proportions for a million generations.
    """
    full_rate = 2 / mu_eff / (dims + math.sqrt(2)) ** 2
    full_rate += (1 - 1 / mu_eff) * min(1, (2 * mu_eff - 1) / ((dims + 2) ** 2 + mu_eff))
    return min((dims + 2) / 3 * full_rate, 1 - c_1)


@strategy(
    "sep-cma-es",
    source="Ros & Hansen 2008 (https://hal.inria.fr/inria-00287367)",
    distribution="separable",
    settings={"elite_ratio": elite_ratio(0.5), **STEP_SIZE, **COVARIANCE},
)
def sep_cma_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Covariance matrix adaptation of the diagonal: one standard deviation for each weight.

    The own value of `c_mu` is Ros & Hansen's (see `_separable_c_mu`), not evosax's.
    """
    algorithm = Sep_CMA_ES(population, jnp.zeros(dims))
    params = replaced(with_elites(algorithm, sigma, values), values, [*STEP_SIZE, "c_c", "c_1"])
    own = _separable_c_mu(dims, float(params.mu_eff), float(params.c_1))
    params = params.replace(c_mu=own if math.isnan(values["c_mu"]) else values["c_mu"])
    # C holds variances, clipped and loaded by ask
    return adapt(
        algorithm,
        params,
        lambda state: state.std * separable.eigen_decomposition(state.C)[1],
        ties=share_weights_and_mass,
    )


def _learn_by_success(
    algorithm: Any, key: jax.Array, population: Any, fitness: Any, state: State, params: Any
) -> State:
    """Return the state of Rm-ES after a generation, its step size by the success of the elites (the first has none)."""
    told = type(algorithm)._tell(algorithm, key, population, params.weights[ranks(fitness)], state, params)
    elites = jnp.sort(fitness)[: algorithm.num_elites]
    before, now = jnp.split(jax.scipy.stats.rankdata(jnp.concatenate([state.fitness_elites_sorted, elites])), 2)
    success = params.weights[: algorithm.num_elites] @ (before - now) / algorithm.num_elites
    success = jnp.where(state.generation_counter == 0, params.q_star, success)
    rate = (1 - params.c_std) * state.cumulative_rank_rate + params.c_std * (success - params.q_star)
    std = algorithm.update_std(state.std, rate, params)
    return told.replace(std=std, cumulative_rank_rate=rate, fitness_elites_sorted=elites)


_RM = {"std_min": nonnegative(1e-3), "std_max": positive(1e8), "mu_eff": Setting(OWN, low=1), "c_mean": positive(1.0)}
_RM |= {
    "c_std": factor(0.3),
    "d_std": positive(1.0),
    "c_c": factor(OWN),
    "c_1": Setting(OWN, low=0, high=1, below=True),
}
_RM |= {"q_star": Setting(0.3, low=-1, high=1)}


@strategy(
    "rm-es",
    source="Li & Zhang 2017 (https://ieeexplore.ieee.org/document/8080257)",
    distribution="low-rank",
    settings={"elite_ratio": elite_ratio(0.5), "m": count(1), **_RM},
)
def rm_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Rank-m evolution strategy: a few remembered directions, and a rank-based success rule.

    evosax draws the random step along each direction once for all members of a generation. The standard deviation is
    that of one member over keys, directions included; as there are none at first, the step size then begins a little
    above `sigma`. Whatever evosax's `T` is, the oldest direction goes, so that it is not among the hyper-parameters.

    evosax's success rule compares the weights of ranks, which are the same in every generation: its step size falls to
    `std_min` whatever the fitness. Here it compares the fitness of two generations' elites, as in the paper.
    """
    paths = int(values["m"])
    algorithm: Any = Rm_ES(population, jnp.zeros(dims), m=paths, fitness_shaping_fn=identity_fitness_shaping_fn)
    algorithm._tell = functools.partial(_learn_by_success, algorithm)
    params = replaced(with_elites(algorithm, sigma, values), values, _RM)
    kept = jnp.sqrt(1 - jnp.float32(params.c_1)) ** jnp.arange(paths, -1, -1)
    params = params.replace(std_init=jnp.float32(sigma) / kept[0])

    def std(state: State) -> jax.Array:
        along = params.c_1 * jnp.sum((kept[1:, None] * state.P) ** 2, axis=0)
        return state.std * jnp.sqrt(kept[0] ** 2 + along)

    return adapt(algorithm, params, std, ties=share_weights_and_mass)
