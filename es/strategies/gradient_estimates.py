"""Estimates of the loss's gradient from paired members, followed by an optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import ARS, ASEBO, ESMC, PGPE, Open_ES

from es.strategies import State, Strategy, strategy
from es.strategies._evosax import (
    CLOCK,
    adam,
    adam_settings,
    adapt,
    count,
    decayed,
    elite_ratio,
    factor,
    matrices,
    positive,
    replaced,
    sigma_schedule,
    sigma_settings,
    with_std,
)
from es.strategies._ties import earned


@strategy(
    "pgpe",
    source="Sehnke et al. 2010 (https://doi.org/10.1016/j.neunet.2009.12.004)",
    distribution="separable",
    settings={
        **adam_settings(0.01, 0.999, 0.001),
        **sigma_settings(0.999, 0.01),
        "std_lr": positive(0.2),
        "std_max_change": factor(0.2),
    },
    paired=True,
)
def pgpe(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Policy gradients with parameter-based exploration: one standard deviation for each weight.

    The defaults are those of Lange & Sprekeler 2023 (arXiv 2306.00045): Adam, not the ClipUp of evosax; after each
    update the standard deviations shrink by `sigma_decay`, down to `sigma_min` (or `sigma`, where that is less).
    """
    algorithm = PGPE(population, jnp.zeros(dims), optimizer=adam(values))
    params = replaced(algorithm.default_params, values, ["std_lr", "std_max_change"]).replace(std_init=sigma)
    floor = min(values["sigma_min"], sigma)
    return adapt(
        algorithm,
        params,
        lambda state: state.std,
        after_tell=lambda state: state.replace(std=jnp.maximum(values["sigma_decay"] * state.std, floor)),
    )


@strategy(
    "open-es",
    source="Salimans et al. 2017 (arXiv 1703.03864)",
    distribution="scalar",
    settings={**adam_settings(0.01, 0.999, 0.001), **sigma_settings(0.999, 0.01)},
    paired=True,
)
def open_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """OpenAI's evolution strategy: Adam on ranks of mirrored members, one standard deviation.

    Adam as in the paper; evosax's own default is plain gradient descent with a learning rate of 0.001.
    """
    schedule = sigma_schedule(sigma, values)
    algorithm = Open_ES(population, jnp.zeros(dims), optimizer=adam(values), std_schedule=schedule)
    return _scheduled(algorithm, schedule)


@strategy(
    "ars",
    source="Mania, Guy & Recht 2018 (arXiv 1803.07055)",
    distribution="scalar",
    settings={"elite_ratio": elite_ratio(), **adam_settings(0.001, 1.0, 0.0), **sigma_settings(1.0, 0.0)},
    paired=True,
)
def ars(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Augmented random search: the best of the mirrored pairs, one standard deviation."""
    schedule = sigma_schedule(sigma, values)
    algorithm = ARS(population, jnp.zeros(dims), optimizer=adam(values), std_schedule=schedule)
    algorithm.elite_ratio = values["elite_ratio"]
    algorithm._tell = functools.partial(_learn_from_pairs, algorithm)
    return _scheduled(algorithm, schedule)


def _learn_from_pairs(
    algorithm: Any, key: jax.Array, population: Any, fitness: Any, state: State, params: Any
) -> State:
    """Return the state after a generation of ARS: evosax's equations, for elites that are pairs in part.

    The last places among the elites may go to several equally good pairs; each of them gets its share of a place.
    """
    del key, params
    half = algorithm.population_size // 2
    plus, minus = fitness[:half], fitness[half:]
    places = (jnp.arange(half) < algorithm.num_elites) / algorithm.num_elites
    share = earned(places, jnp.minimum(plus, minus))
    mean = share @ (plus + minus) / 2
    spread = jnp.sqrt(share @ ((plus - mean) ** 2 + (minus - mean) ** 2) / 2)
    steps = (population[:half] - state.mean) / state.std
    gradient = (share * (plus - minus)) @ steps / jnp.clip(spread, min=1e-8)
    updates, opt_state = algorithm.optimizer.update(gradient, state.opt_state, state.mean)
    return state.replace(mean=optax.apply_updates(state.mean, updates), opt_state=opt_state)


@strategy(
    "esmc",
    source="Merchant et al. 2021 (arXiv 2107.09661)",
    distribution="scalar",
    settings={**adam_settings(0.01, 0.98 ** (1 / 10), 0.0), **sigma_settings(1.0, 0.0)},
    paired=True,
    smallest=4,
)
def esmc(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Evolution with meta-loss clipping: no member counts as worse than the mean.

    The first two members of every population are the mean itself, whose loss is the clip. The standard deviation is
    that of the others.
    """
    schedule = sigma_schedule(sigma, values)
    algorithm = ESMC(population, jnp.zeros(dims), optimizer=adam(values), std_schedule=schedule)
    return _scheduled(algorithm, schedule)


def _scheduled(algorithm: Any, schedule: Callable[[Any], jax.Array]) -> Strategy:
    """Return a strategy whose one standard deviation follows a schedule."""
    return adapt(
        algorithm,
        algorithm.default_params,
        lambda state: state.std,
        after_tell=with_std(schedule),
        clock=CLOCK,
    )


@strategy(
    "asebo",
    source="Choromanski et al. 2019 (arXiv 1903.04268)",
    distribution="low-rank",
    settings={"subspace_dims": count(1), **adam_settings(0.001, 1.0, 0.0), **sigma_settings(1.0, 0.0)},
    paired=True,
    # the projectors on the subspace and beside it, which evosax keeps; the covariance and its root; what they pass by
    memory=matrices(lambda population: 5),
    instead="'cr-fm-nes', or 'open-es'",
)
def asebo(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Adaptive active subspaces: more of the spread along recent gradients.

    The covariance has a trace of 1 in evosax; here it is scaled so that the first standard deviation of each weight is
    `sigma`. The update does not depend on the scale. A `subspace_dims` beyond the number of weights is cut to it.
    """
    rank = min(int(values["subspace_dims"]), dims)
    scale = (1 / dims + _JITTER) ** -0.5
    schedule = decayed(sigma * scale, values["sigma_decay"], values["sigma_min"] * scale)
    algorithm = ASEBO(population, jnp.zeros(dims), rank, optimizer=adam(values), std_schedule=schedule)

    def std(state: State) -> jax.Array:
        # the diagonal of the covariance that ask builds: α/D + (1 - α)/r · diag(U Uᵀ) + jitter
        centred = state.grad_subspace - jnp.mean(state.grad_subspace, axis=0)
        _, length, direction = jnp.linalg.svd(centred, full_matrices=False)
        tolerance = jnp.finfo(length.dtype).eps * max(centred.shape) * length[0]
        informative = (length[:rank] > tolerance).astype(jnp.float32)
        along = informative @ direction[:rank] ** 2 / jnp.maximum(jnp.sum(informative), 1)
        along = jnp.where(state.generation_counter > rank, along, 0)
        return state.std * jnp.sqrt(state.alpha / dims + (1 - state.alpha) * along + _JITTER)

    def pairs_differ(fitness: jax.Array, state: State) -> jax.Array:
        del state
        # without a gradient evosax would take all of the spread to be in a subspace that it does not have
        return jnp.any(fitness[: population // 2] != fitness[population // 2 :])

    return adapt(
        algorithm,
        algorithm.default_params,
        std,
        teaches=pairs_differ,
        after_tell=with_std(schedule),
        clock=CLOCK,
    )


_JITTER = 1e-6
"""What evosax adds to the variances of ASEBO, so that the covariance has a root."""
