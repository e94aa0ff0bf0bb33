"""Local search: the mean is the best member found, and one standard deviation serves all weights."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from evosax.algorithms import GradientlessDescent, HillClimbing, SimulatedAnnealing

from es.strategies import State, Strategy, strategy
from es.strategies._evosax import adapt, factor, nonnegative, positive, replaced, sigma_schedule, sigma_settings

_BEST = ("mean", "best_solution_shaped")
"""The search goes on from its best solution, so that moving the mean moves that as well."""


@strategy(
    "hill-climbing",
    source="Rechenberg 1973 (https://doi.org/10.1002/fedr.19750860506)",
    distribution="scalar",
    settings=sigma_settings(1.0, 0.0),
)
def hill_climbing(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Gaussian hill climbing: the best member so far is the next mean."""
    algorithm = HillClimbing(population, jnp.zeros(dims), std_schedule=sigma_schedule(sigma, values))
    return adapt(algorithm, algorithm.default_params, lambda state: state.std, centre=_BEST)


_ANNEALING = {"temperature_init": positive(1.0), "temperature_limit": nonnegative(0.1)}
_ANNEALING |= {"temperature_decay": factor(0.999), "boltzmann_constant": positive(5.0)}


@strategy(
    "simulated-annealing",
    source="Kirkpatrick, Gelatt & Vecchi 1983 (https://doi.org/10.1126/science.220.4598.671)",
    distribution="scalar",
    settings={**_ANNEALING, **sigma_settings(1.0, 0.0)},
)
def simulated_annealing(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Simulated annealing: the best member of a generation is the next mean, now and then a worse one too."""
    algorithm = SimulatedAnnealing(population, jnp.zeros(dims), std_schedule=sigma_schedule(sigma, values))
    return adapt(algorithm, replaced(algorithm.default_params, values, _ANNEALING), lambda state: state.std)


@strategy(
    "gradientless-descent",
    source="Golovin et al. 2020 (arXiv 1911.06317)",
    distribution="scalar",
    settings={"radius_min": nonnegative(0.001), "radius_decay": positive(5.0)},
)
def gradientless_descent(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Gradientless descent: members at radii from large to small around the best.

    Each member has a radius of its own, from `sigma` for the first towards `radius_min` (or `sigma`, where that is
    less); the standard deviation is that of a member drawn from them all, and less than `sigma`.
    """
    algorithm = GradientlessDescent(population, jnp.zeros(dims))
    params = replaced(algorithm.default_params, values, ["radius_decay"])
    params = params.replace(radius_max=sigma, radius_min=min(values["radius_min"], sigma))

    def std(state: State) -> jax.Array:
        share = jnp.exp2(-jnp.arange(population) / params.radius_decay)
        radius = params.radius_min + share * (params.radius_max - params.radius_min)
        return jnp.sqrt(jnp.mean(radius**2))

    return adapt(algorithm, params, std, centre=_BEST)
