"""Strategies that were found by meta-learning. Their weights come with evosax, and are read when one is made."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax
from evosax.algorithms import CMAAnchoredLES, DiscoveredES, EvoTF_ES, LearnedES

from es.strategies import State, Strategy, strategy
from es.strategies._evosax import adapt, count, positive, rate, replaced
from es.strategies._tied_features import EvoTFDistribution, EvoTFFitness, EvoTFSolution, LESFitness, learn_anchored
from es.strategies._ties import share_weights


@strategy(
    "des",
    source="Lange et al. 2023, section 5 (arXiv 2211.11260)",
    distribution="separable",
    settings={"lr": positive(1.0), "lr_std": rate(0.1), "temperature": positive(12.5)},
)
def des(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Discovered evolution strategy: a formula read off a learned one."""
    algorithm = DiscoveredES(population, jnp.zeros(dims), optimizer=optax.sgd(values["lr"]))
    algorithm.temperature = values["temperature"]
    params = replaced(algorithm.default_params, values, ["lr_std"]).replace(std_init=sigma)
    return adapt(algorithm, params, lambda state: state.std, ties=share_weights)


@strategy("les", source="Lange et al. 2023 (arXiv 2211.11260)", distribution="separable")
def les(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Learned evolution strategy: attention over members decides how they are recombined."""
    algorithm: Any = LearnedES(population, jnp.zeros(dims))
    algorithm.fitness_features = LESFitness(algorithm.fitness_features)
    return adapt(algorithm, algorithm.default_params.replace(std_init=sigma), lambda state: state.std)


def _context(population: int, dims: int, values: Mapping[str, float]) -> tuple[int, str]:
    generations = int(values["max_context_len"])
    # measured on the compiled update: the features of each member and weight, and what the network makes of them
    size = 4 * generations * dims * (76 * population + 500)
    return size, f"a transformer over {generations:,} generations of {population:,} members"


@strategy(
    "evotf-es",
    source="Lange, Tian & Tang 2024 (arXiv 2403.02985)",
    distribution="separable",
    settings={"lr_mean": positive(1.0), "lr_std": positive(1.0), "max_context_len": count(100, low=2)},
    memory=_context,
    instead="a shorter max_context_len, or 'les'",
)
def evotf_es(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Evolution transformer: attention over members and past generations.

    >>> from es.strategies import get_strategy
    >>> kind = get_strategy("evotf-es")
    >>> kind.make is evotf_es, kind.distribution, kind.hyperparameters["max_context_len"]
    (True, 'separable', 100)
    """
    algorithm: Any = EvoTF_ES(population, jnp.zeros(dims), max_context_len=int(values["max_context_len"]))
    algorithm.sf = EvoTFSolution(algorithm.sf)
    algorithm.ff = EvoTFFitness(algorithm.ff)
    algorithm.df = EvoTFDistribution(algorithm.df)
    params = replaced(algorithm.default_params, values, ["lr_mean", "lr_std"]).replace(std_init=sigma)

    def start(state: State) -> State:
        # as the best solution of the state itself, this one begins as NaN
        return state.replace(sf_state=state.sf_state.replace(best_solution=jnp.array(state.mean)))

    return adapt(algorithm, params, lambda state: state.std, start=start)


@strategy(
    "cma-anchored-les",
    source="evosax 0.3.2 (https://github.com/RobertTLange/evosax)",
    distribution="separable",
)
def cma_anchored_les(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Separable CMA-ES with learned, bounded corrections and restarts.

    >>> from es.strategies import get_strategy
    >>> kind = get_strategy("cma-anchored-les")
    >>> kind.make is cma_anchored_les, kind.distribution, kind.hyperparameters
    (True, 'separable', {})
    """
    algorithm: Any = CMAAnchoredLES(population, jnp.zeros(dims))
    algorithm._tell = functools.partial(learn_anchored, algorithm)
    return adapt(algorithm, algorithm.default_params.replace(std_init=sigma), lambda state: state.std)
