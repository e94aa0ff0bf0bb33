"""Local search: the mean is the best member found, and one standard deviation serves all weights.

Of equally good members the one nearest to the mean counts as the best.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from evosax.algorithms import GradientlessDescent, HillClimbing, SimulatedAnnealing

from es.strategies import State, Strategy, strategy
from es.strategies._evosax import (
    CLOCK,
    adapt,
    factor,
    nonnegative,
    positive,
    replaced,
    sigma_schedule,
    sigma_settings,
    with_std,
)
from es.strategies._ties import differ, nearest_best

_BEST = ("mean", "best_solution_shaped")
"""The search continues from its best solution, so that moving the mean moves that as well."""


@strategy(
    "hill-climbing",
    source="Rechenberg 1973 (https://doi.org/10.1002/fedr.19750860506)",
    distribution="scalar",
    settings=sigma_settings(1.0, 0.0),
)
def hill_climbing(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Gaussian hill climbing: the best member so far is the next mean."""
    schedule = sigma_schedule(sigma, values)
    algorithm = HillClimbing(population, jnp.zeros(dims), std_schedule=schedule)
    return adapt(
        algorithm,
        algorithm.default_params,
        lambda state: state.std,
        teaches=_better_than_before,
        after_tell=lambda state: _at_the_best(with_std(schedule)(state)),
        clock=CLOCK,
        centre=_BEST,
    )


def _better_than_before(fitness: jax.Array, state: State) -> jax.Array:
    """Say whether a member is better than another, or all of them are better than the best so far."""
    best = state.best_fitness_shaped
    return differ(fitness) | (jnp.isfinite(best) & (jnp.min(fitness) < best))


def _at_the_best(state: State) -> State:
    return state.replace(mean=state.best_solution_shaped)


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
    schedule = sigma_schedule(sigma, values)
    algorithm = SimulatedAnnealing(population, jnp.zeros(dims), std_schedule=schedule)
    return adapt(
        algorithm,
        replaced(algorithm.default_params, values, _ANNEALING),
        lambda state: state.std,
        teaches=lambda fitness, state: (
            differ(fitness) | (jnp.isfinite(state.fitness) & (jnp.min(fitness) < state.fitness))
        ),
        before_tell=_nearest_for_the_best,
        after_tell=with_std(schedule),
        clock=(*CLOCK, "temperature"),
    )


def _nearest_for_the_best(
    population: jax.Array, fitness: jax.Array, state: State
) -> tuple[jax.Array, jax.Array, State]:
    """Return the population with its nearest best member where evosax takes the best one from: the first."""
    return population.at[jnp.argmin(fitness)].set(nearest_best(population, fitness, state.mean)), fitness, state


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

    return adapt(algorithm, params, std, teaches=_better_than_before, after_tell=_at_the_best, centre=_BEST)
