"""Equally good members: a plateau teaches nothing, and a tie has what its ranks have together, in any order."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms import CMAAnchoredLES

from es.strategies import STRATEGIES, make_strategy
from es.strategies._tied_features import learn_anchored
from es.strategies._ties import by_rank, earned, failed_are_worst, share_weights_and_mass

NAMES = STRATEGIES.names()
POPULATION, DIMS, SIGMA, GENERATIONS = 12, 6, 0.1, 100
# Neither collapses nor explodes; where sigma has a schedule it has fallen to 0.999^100 of itself.
FACTOR = 1.2
# They learn from pairs of members around the mean: a member alone cannot change its place.
MIRRORED = ("ars", "asebo", "cma-anchored-les", "esmc", "open-es", "pgpe")


@functools.cache
def made(name: str) -> Any:
    return make_strategy(name, POPULATION, DIMS, SIGMA, {"max_context_len": 4} if name == "evotf-es" else None)


@functools.cache
def compiled(name: str) -> Any:
    """`run(levels, generations)`: a search where all members have the fitness that its generation's level is."""
    strategy = made(name)

    def run(start: Any, levels: jax.Array) -> Any:
        def generation(state: Any, at: Any) -> Any:
            key, level = at
            population, asked = strategy.ask(key, state)
            return strategy.tell(key, population, jnp.full(POPULATION, level), asked), None

        return jax.lax.scan(generation, start, (jax.random.split(jax.random.key(1), len(levels)), levels))[0]

    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


def first(name: str) -> Any:
    return made(name).init(jax.random.key(0), jnp.linspace(-1, 1, DIMS))


@pytest.mark.parametrize("name", NAMES)
def test_a_plateau_moves_neither_the_mean_nor_the_spread(name: str) -> None:
    # of whatever height, and also where it changes from generation to generation, as it does with minibatches
    start = first(name)
    levels = 1 + jnp.sin(jnp.arange(GENERATIONS)) / 2 if name not in LOCAL else jnp.ones(GENERATIONS)
    end = compiled(name)(start, levels)
    np.testing.assert_array_equal(made(name).mean(end), made(name).mean(start))
    ratio = np.asarray(made(name).std(end) / made(name).std(start))
    assert np.all((ratio > 1 / FACTOR) & (ratio < FACTOR))


LOCAL = ("gradientless-descent", "hill-climbing", "simulated-annealing")


@pytest.mark.parametrize("name", LOCAL)
def test_local_search_leaves_a_plateau_for_one_that_is_better_than_all_before(name: str) -> None:
    still = compiled(name)(first(name), jnp.ones(5))
    moved = compiled(name)(still, jnp.array([0.5, 1.0]))
    assert not np.array_equal(made(name).mean(moved), made(name).mean(still))


def ordered(name: str) -> list[Any]:
    """Members of two generations whose tied rows may change places, and the fitness of both."""
    strategy = made(name)
    population, asked = strategy.ask(jax.random.key(2), first(name))
    return [strategy, population, asked]


SPARSE = jnp.array([0.0, 0, -1, 0, 0, -2, 0, 0, -1, 0, 0, 0])
ORDER = jnp.array([1, 0, 8, 4, 3, 5, 7, 6, 2, 11, 9, 10])
BINARY = jnp.array([0.0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1])
ORDER_OF_BINARY = jnp.array([2, 3, 5, 1, 9, 8, 10, 4, 6, 7, 0, 11])


@pytest.mark.parametrize(("fitness", "order"), [(SPARSE, ORDER), (BINARY, ORDER_OF_BINARY)], ids=["sparse", "binary"])
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(MIRRORED)))
def test_equal_members_may_change_places(name: str, fitness: jax.Array, order: jax.Array) -> None:
    assert jnp.array_equal(fitness[order], fitness)
    strategy, population, asked = ordered(name)
    tell = jax.jit(strategy.tell, compiler_options={"xla_backend_optimization_level": 0})
    rows = {field: getattr(asked, field)[order] for field in ("z", "y") if hasattr(asked, field)}
    told = tell(jax.random.key(3), population, fitness, asked)
    other = tell(jax.random.key(3), population[order], fitness, asked.replace(**rows))
    np.testing.assert_allclose(strategy.mean(other), strategy.mean(told), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(strategy.std(other), strategy.std(told), rtol=1e-4)
    assert not np.array_equal(strategy.mean(told), strategy.mean(asked))


@pytest.mark.parametrize("name", ["ars", "open-es", "pgpe", "asebo"])
def test_equal_pairs_may_change_places(name: str) -> None:
    half = POPULATION // 2
    order = jnp.array([1, 0, 3, 2, 4, 5])
    fitness = jnp.array([0.0, 0, 1, 1, 0, 3, 2, 2, 0, 0, 0, 3])
    both = jnp.concatenate([order, order + half])
    strategy, population, asked = ordered(name)
    told = strategy.tell(jax.random.key(3), population, fitness, asked)
    other = strategy.tell(jax.random.key(3), population[both], fitness, asked)
    np.testing.assert_allclose(strategy.mean(other), strategy.mean(told), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["cma-es", "sep-cma-es", "ma-es", "lm-ma-es"])
def test_a_reward_by_chance_does_not_change_the_step_size(name: str) -> None:
    """Half of the members tie at 0, and which half has nothing to do with their weights."""
    strategy = make_strategy(name, 32, 20, SIGMA)

    def generation(i: Any, state: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(4), i)
        population, asked = strategy.ask(key, state)
        chance = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, (32,))
        return strategy.tell(key, population, chance.astype(jnp.float32), asked)

    end = jax.jit(lambda state: jax.lax.fori_loop(0, GENERATIONS, generation, state))(
        strategy.init(jax.random.key(0), jnp.zeros(20))
    )
    assert SIGMA / 3 < float(strategy.std(end).mean()) < 3 * SIGMA


def test_what_a_tie_earns_is_what_its_ranks_have_together() -> None:
    weights = jnp.array([0.5, 0.3, 0.2, 0.0, -0.1])
    fitness = jnp.array([3.0, 1.0, 3.0, 1.0, 2.0])
    np.testing.assert_allclose(earned(weights, fitness), [-0.05, 0.4, -0.05, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(by_rank(weights, fitness), [0.4, 0.4, 0.2, -0.05, -0.05], rtol=1e-6)
    assert earned(weights, fitness).sum() == pytest.approx(weights.sum())


def test_without_ties_nothing_changes_bit_by_bit() -> None:
    weights = jax.random.normal(jax.random.key(0), (50,))
    fitness = jax.random.normal(jax.random.key(1), (50,))
    assert jnp.array_equal(earned(weights, fitness)[jnp.argsort(fitness)], weights)


def test_the_selection_mass_is_that_of_the_shared_weights() -> None:
    class Params:
        weights, mu_eff = jnp.array([0.7, 0.3, 0.0, 0.0]), 1 / (0.7**2 + 0.3**2)

        def replace(self, **fields: Any) -> Any:
            return fields

    assert share_weights_and_mass(Params(), jnp.zeros(4))["mu_eff"] == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_member_without_a_finite_loss_is_worse_than_all_others(broken: float) -> None:
    for others in (0.0, -3.0, 1e30, 3e38):
        fitness = failed_are_worst(jnp.array([others, broken, others], jnp.float32))
        assert fitness[1] > fitness[0] or others == 3e38
        assert jnp.isfinite(fitness).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_does_not_go_to_members_that_failed(name: str) -> None:
    """On a plateau with holes, as where some networks overflow: the holes must not look as good as the rest."""
    strategy, population, asked = ordered(name)
    fitness = jnp.zeros(POPULATION).at[jnp.array([0, 3])].set(jnp.nan)
    told = strategy.tell(jax.random.key(3), population, fitness, asked)
    good = strategy.tell(jax.random.key(3), population, fitness.at[jnp.array([0, 3])].set(1e-30), asked)
    np.testing.assert_allclose(strategy.mean(told), strategy.mean(good), rtol=1e-5, atol=1e-6)
    assert np.isfinite(np.asarray(strategy.std(told))).all()


def test_what_the_anchored_strategy_learns_does_not_depend_on_the_order_of_equally_good_members():
    algorithm: Any = CMAAnchoredLES(4, jnp.zeros(2))
    params = algorithm.default_params
    state = algorithm.init(jax.random.key(0), jnp.zeros(2), params)
    members, state = algorithm.ask(jax.random.key(1), state, params)
    fitness, swapped = jnp.array([3.0, 1.0, 1.0, 2.0]), jnp.array([0, 2, 1, 3])
    one, other, plain, turned = (
        tell(jax.random.key(2), members[order], fitness, state, params).mean
        for tell in (functools.partial(learn_anchored, algorithm), algorithm._tell)
        for order in (jnp.arange(4), swapped)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert not np.allclose(plain, turned, rtol=1e-5, atol=1e-7)
