"""Estimation of the distribution from the better members."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import SimpleES, iAMaLGaM_Full, iAMaLGaM_Univariate

from es.strategies import Setting, State, Strategy, strategy
from es.strategies._evosax import (
    OWN,
    adapt,
    count,
    decayed,
    elite_ratio,
    factor,
    matrices,
    nonnegative,
    positive,
    rate,
    replaced,
)
from es.strategies._ties import earned, share_weights


@strategy(
    "simple-es",
    source="Rechenberg 1973 (https://doi.org/10.1002/fedr.19750860506)",
    distribution="separable",
    settings={"elite_ratio": elite_ratio(), "lr": positive(1.0), "c_std": rate(0.1)},
)
def simple_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Mean and standard deviations of the better members, without ranks among them."""
    algorithm = SimpleES(population, jnp.zeros(dims), optimizer=optax.sgd(values["lr"]))
    algorithm.elite_ratio = values["elite_ratio"]
    params = replaced(algorithm.default_params, values, ["c_std"]).replace(std_init=sigma)
    return adapt(algorithm, params, lambda state: state.std, ties=share_weights)


_AMALGAM = {"eta_std": rate(OWN), "eta_shift": rate(OWN), "eta_avs_inc": Setting(1 / 0.9, low=1)}
_AMALGAM |= {"eta_avs_dec": factor(0.9), "nis_max_gens": count(50), "delta_ams": nonnegative(2.0)}
_AMALGAM |= {"theta_sdr": nonnegative(1.0), "c_mult_init": positive(1.0)}
_STD_FLOOR = {"std_floor": Setting(0.1, low=0, high=1, below=True)}


def _amalgam(kind: Any, population: int, dims: int, sigma: float, values: Mapping[str, float]) -> tuple[Any, Any]:
    floor = values["std_floor"] * sigma
    algorithm = kind(population, jnp.zeros(dims), std_schedule=decayed(floor, 1.0, 0.0))
    algorithm.elite_ratio = values["elite_ratio"]
    # the constructor has computed this for a ratio of 0.5
    shifted = 0.5 * values["elite_ratio"] * population / (population - algorithm.num_elites)
    algorithm.ams_population_size = int(shifted * (population - 1))
    algorithm._tell = functools.partial(_learn, algorithm)
    return algorithm, replaced(algorithm.default_params, values, _AMALGAM)


def _learn(algorithm: Any, key: jax.Array, population: Any, fitness: Any, state: State, params: Any) -> State:
    """Return the state after a generation: evosax's equations, for elites that are members in part.

    The last places among the elites may go to several equally good members; each of them gets its share of a place.
    """
    del key
    places = jnp.arange(algorithm.population_size) < algorithm.num_elites
    share = earned(places / algorithm.num_elites, fitness)
    better = share * (fitness < state.best_fitness_shaped)
    ratio = algorithm.standard_deviation_ratio(better, population, state.C, state.mean)
    c_mult, counter = algorithm.adaptive_variance_scaling(
        jnp.any(better > 0), ratio, state.c_mult, state.nis_counter, params
    )
    mean = jnp.dot(share, population, precision=jax.lax.Precision.HIGHEST)
    # evosax takes the sum of squares over its elites, divided by their number
    weighted = mean + jnp.sqrt(share * algorithm.num_elites)[:, None] * (population - mean)
    return state.replace(
        mean=mean,
        std=algorithm.std_schedule(state.generation_counter),
        C=algorithm.update_cov(weighted, state.C, mean, params),
        mean_shift=(1 - params.eta_shift) * state.mean_shift + params.eta_shift * (mean - state.mean),
        nis_counter=counter,
        c_mult=c_mult,
        best_fitness_shaped=jnp.minimum(state.best_fitness_shaped, jnp.min(fitness)),
    )


@strategy(
    "iamalgam-univariate",
    source="Bosman, Grahl & Thierens 2013 (https://doi.org/10.1162/EVCO_a_00094)",
    distribution="separable",
    settings={"elite_ratio": elite_ratio(0.5), **_STD_FLOOR, **_AMALGAM},
)
def iamalgam_univariate(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Maximum-likelihood Gaussian with anticipated mean shift, one variance for each weight.

    evosax adds a constant to the standard deviations, and starts at that constant plus 1. Here the constant is
    `std_floor` · `sigma`, and the start is `sigma`. A part of the members is shifted along the last moves of the mean;
    the standard deviation is that of members around their centre, shifted or not.
    """
    algorithm, params = _amalgam(iAMaLGaM_Univariate, population, dims, sigma, values)
    first = (sigma - values["std_floor"] * sigma) ** 2
    return adapt(
        algorithm,
        params,
        lambda state: state.std + jnp.sqrt(state.C),
        start=lambda state: state.replace(C=jnp.full(dims, first)),
    )


@strategy(
    "iamalgam-full",
    source="Bosman, Grahl & Thierens 2013 (https://doi.org/10.1162/EVCO_a_00094)",
    distribution="full",
    settings={"elite_ratio": elite_ratio(0.5), **_STD_FLOOR, **_AMALGAM},
    # C before and after, and two while its root is made
    memory=matrices(lambda population: 4),
    instead="'iamalgam-univariate', its separable form",
)
def iamalgam_full(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Maximum-likelihood Gaussian with anticipated mean shift, correlations between all weights.

    As `iamalgam-univariate`, where the constant is added to the variances.
    """
    algorithm, params = _amalgam(iAMaLGaM_Full, population, dims, sigma, values)
    first = sigma**2 - (values["std_floor"] * sigma) ** 2
    return adapt(
        algorithm,
        params,
        lambda state: jnp.sqrt(jnp.diagonal(state.C) + state.std**2),
        start=lambda state: state.replace(C=first * jnp.eye(dims)),
    )
