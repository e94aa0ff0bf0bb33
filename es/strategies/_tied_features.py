"""What learned strategies see of a generation, where members tie: the same of members that are equally good.

evosax's features rank members, and of two that tie the first ranks better. Here they are means over all orders of a
tie. Without ties nothing changes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from es.strategies._ties import by_rank, shared


@dataclass(frozen=True)
class LESFitness:
    """The fitness features of LES.

    Attributes:
        features: evosax's.
    """

    features: Any

    def apply(self, population: jax.Array, fitness: jax.Array, best: Any) -> jax.Array:
        """Return the features of each member, [P, F]."""
        return shared(self.features.apply(population, fitness, best), fitness)


@dataclass(frozen=True)
class _EvoTF:
    """Features of the evolution transformer.

    Attributes:
        features: evosax's.
    """

    features: Any

    @property
    def num_features(self) -> int:
        """How many there are."""
        return self.features.num_features

    def init(self) -> Any:
        """Return the first state."""
        return self.features.init()


class EvoTFFitness(_EvoTF):
    """The fitness features of the evolution transformer."""

    def featurize(self, population: jax.Array, fitness: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Return the features of each member, [P, F], and the next state."""
        found, state = self.features.featurize(population, fitness, state)
        return shared(found, fitness), state


class EvoTFSolution(_EvoTF):
    """The features of the evolution transformer that compare members with the best so far."""

    def featurize(
        self, population: jax.Array, fitness: jax.Array, mean: jax.Array, std: jax.Array, state: Any
    ) -> tuple[jax.Array, Any]:
        """Return the features of each member and weight, [P, D, F], and the next state.

        Of equally good members, the one nearest to the mean is the best: here it changes places with the first.
        """
        distance = jnp.sum((population - mean) ** 2, axis=-1)
        best = fitness == jnp.min(fitness)
        first, nearest = jnp.argmax(best), jnp.argmin(jnp.where(best, distance, jnp.inf))
        order = jnp.arange(fitness.size).at[first].set(nearest).at[nearest].set(first)
        found, state = self.features.featurize(population[order], fitness, mean, std, state)
        return found[order], state


class EvoTFDistribution(_EvoTF):
    """The features of the evolution transformer that estimate gradients of the mean and the standard deviations."""

    def featurize(
        self, population: jax.Array, fitness: jax.Array, mean: jax.Array, std: jax.Array, state: Any
    ) -> tuple[jax.Array, Any]:
        """Return the features of each weight, [D, F], and the next state.

        The estimates are linear in the members' steps and in their squares: a tie has the mean of each.
        """
        steps = (population - mean) / std
        squares = jnp.sqrt(shared(steps**2, fitness))
        found, after = self.features.featurize(mean + std * shared(steps, fitness), fitness, mean, std, state)
        other, of_squares = self.features.featurize(mean + std * squares, fitness, mean, std, state)
        traces = state.evopath_mean.shape[1]
        about_std = jnp.array([1, *range(2 + traces, 2 + 2 * traces)])
        found = found.at[:, about_std].set(other[:, about_std])
        return found, after.replace(evopath_std=of_squares.evopath_std)


def learn_anchored(algorithm: Any, key: jax.Array, population: Any, fitness: Any, state: Any, params: Any) -> Any:
    """Return the state of CMA-anchored LES after a generation: evosax's update with what belongs to ranks shared."""

    def features(*seen: Any) -> jax.Array:
        found = type(algorithm)._member_features(algorithm, *seen)
        return found.at[:, :2].set(shared(found[:, :2], fitness))  # the rank and its quantile

    tied = copy.copy(algorithm)
    tied.base_weights = by_rank(algorithm.base_weights, fitness)
    tied._member_features = features
    return type(algorithm)._tell(tied, key, population, fitness, state, params)
