"""What every strategy promises, over the registry; then what single ones do."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from es.strategies import LEFT_OUT, STRATEGIES, Strategy, get_strategy, make_strategy, require_per_weight_std
from pruning.errors import BadValue, UnknownName

NAMES = STRATEGIES.names()
PER_WEIGHT = [entry.name for entry in STRATEGIES if entry.value.distribution != "scalar"]
POPULATION, DIMS, SIGMA = 12, 8, 0.3
TARGET = jnp.linspace(-1.0, 1.0, DIMS)
SCALES = jnp.geomspace(0.1, 30.0, DIMS)
# so that every strategy moves within the few generations of a test
QUICKER: dict[str, dict[str, float]] = {
    "ars": {"lr": 0.03},
    "asebo": {"lr": 0.03, "subspace_dims": 6},
    "open-es": {"lr": 0.03},
    "esmc": {"lr": 0.03},
    "pgpe": {"lr": 0.03},
    "evotf-es": {"max_context_len": 4},
    "rm-es": {"m": 2},
    "iamalgam-full": {"std_floor": 0.5},
}


# the functions are small and run a few times: compiling them well takes longer than running them
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def loss(population: jax.Array, weight: Any = 1.0) -> jax.Array:
    return weight * jnp.sum(SCALES * (population - TARGET) ** 2, axis=-1)


def compiled(strategy: Strategy) -> Strategy:
    return dataclasses.replace(
        strategy,
        **{name: quick_jit(getattr(strategy, name)) for name in ("init", "ask", "tell", "std")},
    )


@functools.cache
def made(name: str) -> Strategy:
    return make_strategy(name, POPULATION, DIMS, SIGMA, QUICKER.get(name))


@functools.cache
def ready(name: str) -> Strategy:
    return compiled(made(name))


def generation(strategy: Strategy, key: jax.Array, state: Any, weight: Any = 1.0) -> Any:
    ask_key, tell_key = jax.random.split(key)
    population, state = strategy.ask(ask_key, state)
    return strategy.tell(tell_key, population, loss(population, weight), state)


def search(name: str, seed: Any, mean: jax.Array, generations: Any, weight: Any) -> Any:
    """A whole search in one loop; the state is the loop's carry."""
    strategy, key = made(name), jax.random.key(seed)

    def body(i: Any, state: Any) -> Any:
        return generation(strategy, jax.random.fold_in(key, i), state, weight)

    return jax.lax.fori_loop(0, generations, body, strategy.init(key, mean))


@functools.cache
def runner(name: str) -> Callable[..., Any]:
    """`run(seed, mean, generations, weight)`"""
    return quick_jit(functools.partial(search, name))


@functools.cache
def evolved(name: str) -> Any:
    """A state that is not trivial: after some generations on a quadratic with axes of different lengths."""
    return runner(name)(1, jnp.zeros(DIMS), 40, 1.0)


def sampled(strategy: Strategy, state: Any, keys: int = 8000) -> jax.Array:
    """Populations of many asks, [keys, P, D]."""
    return quick_jit(jax.vmap(lambda key: strategy.ask(key, state)[0]))(jax.random.split(jax.random.key(7), keys))


def same(first: Any, second: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


# the standard deviation


def test_every_strategy_is_here() -> None:
    assert set(NAMES) == set(
        "ars asebo cma-anchored-les cma-es cr-fm-nes des esmc evotf-es gradientless-descent hill-climbing iamalgam-full "
        "iamalgam-univariate les lm-ma-es ma-es open-es pgpe rm-es sep-cma-es simple-es simulated-annealing snes "
        "xnes".split()
    )


def only_noise(name: str) -> Strategy:
    """The strategy without members that are shifted on purpose."""
    settings = QUICKER.get(name, {})
    if name.startswith("iamalgam"):  # the anticipated mean shift is not part of the std that is promised
        settings = settings | {"delta_ams": 0.0}
    return make_strategy(name, POPULATION, DIMS, SIGMA, settings)


@pytest.mark.parametrize("name", NAMES)
def test_std_and_mean_are_those_of_the_next_population(name: str) -> None:
    strategy, state = made(name), evolved(name)
    populations = sampled(only_noise(name), state)
    if name == "esmc":  # two members are the mean itself, on purpose; the std is of the others
        assert jnp.all(populations[:, :2] == strategy.mean(state))
        populations = populations[:, 2:]
    members = populations.reshape(-1, DIMS)
    std = strategy.std(state)
    assert std.shape == (DIMS,) and std.dtype == jnp.float32
    np.testing.assert_allclose(jnp.std(members, axis=0), std, rtol=0.025)
    assert jnp.all(jnp.abs(jnp.mean(members, axis=0) - strategy.mean(state)) < 5 * std / math.sqrt(len(populations)))


@pytest.mark.parametrize("name", PER_WEIGHT)
def test_a_per_weight_std_differs_between_weights(name: str) -> None:
    # otherwise the test above would pass for a wrong formula
    std = ready(name).std(evolved(name))
    assert jnp.max(std) > 1.15 * jnp.min(std)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(PER_WEIGHT)))
def test_a_scalar_std_is_the_same_for_all_weights(name: str) -> None:
    assert jnp.ptp(ready(name).std(evolved(name))) == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_first_std_is_sigma(name: str) -> None:
    for sigma in (0.02, 3.0):
        strategy = compiled(make_strategy(name, POPULATION, DIMS, sigma, QUICKER.get(name)))
        std = np.asarray(strategy.std(strategy.init(jax.random.key(0), jnp.zeros(DIMS))))
        if name == "gradientless-descent":  # sigma is the radius of its first member, the largest
            assert np.all((std > 0) & (std < sigma))
        elif name == "cr-fm-nes":  # it begins with a random direction
            assert np.all((std >= sigma * 0.999) & (std < 2 * sigma))
        else:
            np.testing.assert_allclose(std, sigma, rtol=1e-5)


def test_sep_cma_es_has_the_root_of_its_variances() -> None:
    state = evolved("sep-cma-es")
    members = sampled(made("sep-cma-es"), state).reshape(-1, DIMS)
    for wrong in (state.C, state.std * state.C, jnp.sqrt(state.C)):
        assert jnp.max(jnp.abs(wrong / jnp.std(members, axis=0) - 1)) > 0.1


@pytest.mark.parametrize("name", ["iamalgam-full", "iamalgam-univariate"])
def test_amalgam_shifts_a_part_of_its_members(name: str) -> None:
    state = evolved(name)
    members = sampled(made(name), state).reshape(-1, DIMS)
    share = int(0.5 * (POPULATION - 1)) / POPULATION
    shift = 2.0 * state.c_mult * state.mean_shift
    around = ready(name).std(state)
    np.testing.assert_allclose(jnp.std(members, axis=0), jnp.sqrt(around**2 + share * (1 - share) * shift**2), rtol=0.025)
    assert jnp.all(jnp.abs(jnp.mean(members, 0) - state.mean - share * shift) < 0.03 * around + 0.03 * jnp.abs(shift))


# the state


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_plain_arrays_that_keep_their_shapes_and_types(name: str) -> None:
    strategy = made(name)
    state = strategy.init(jax.random.key(0), np.zeros(DIMS, np.float32))  # type: ignore[arg-type]
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) and not leaf.weak_type for leaf in leaves)
    assert {str(leaf.dtype) for leaf in leaves} <= {"float32", "int32"}
    assert not any(jnp.isnan(leaf).any() for leaf in leaves)

    population, asked = jax.eval_shape(strategy.ask, jax.random.key(0), state)
    told = jax.eval_shape(functools.partial(generation, strategy), jax.random.key(0), state)
    moved = jax.eval_shape(strategy.with_mean, state, jnp.ones(DIMS))
    assert population.shape == (POPULATION, DIMS) and population.dtype == jnp.float32 and not population.weak_type
    want = jax.eval_shape(lambda: state)
    for got in (asked, told, moved):
        assert jax.tree.structure(got) == jax.tree.structure(want)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert (one.shape, one.dtype, one.weak_type) == (other.shape, other.dtype, other.weak_type)


@pytest.mark.parametrize("name", NAMES)
def test_two_states_under_vmap_are_as_one_by_one(name: str) -> None:
    run = runner(name)
    seeds, means = jnp.array([3, 4]), jnp.stack([jnp.zeros(DIMS), jnp.ones(DIMS)])
    both = quick_jit(jax.vmap(functools.partial(search, name), in_axes=(0, 0, None, None)))(seeds, means, 3, 1.0)
    for i in range(2):
        alone = run(seeds[i], means[i], 3, 1.0)
        for stacked, single in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(stacked[i], single, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_improves_a_quadratic(name: str) -> None:
    start = jnp.zeros(DIMS)
    end = runner(name)(2, start, 150, 1.0)
    assert loss(made(name).mean(end)) < 0.3 * loss(start)


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_loss_gives_no_nan(name: str) -> None:
    end = runner(name)(2, jnp.ones(DIMS), 30, 0.0)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(end.replace(best_fitness=0)))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_key_gives_the_same_bits(name: str) -> None:
    strategy, state = ready(name), evolved(name)
    first, again = (strategy.ask(jax.random.key(5), state)[0] for _ in range(2))
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(first, strategy.ask(jax.random.key(6), state)[0])
    assert same(runner(name)(1, jnp.zeros(DIMS), 40, 1.0), state)


@pytest.mark.parametrize("name", NAMES)
def test_with_mean_moves_the_population_and_nothing_else(name: str) -> None:
    strategy, state = ready(name), evolved(name)
    shift = jnp.linspace(1.0, 2.0, DIMS)
    moved = strategy.with_mean(state, strategy.mean(state) + shift)
    key = jax.random.key(0)
    np.testing.assert_array_equal(strategy.mean(moved), strategy.mean(state) + shift)
    np.testing.assert_array_equal(strategy.std(moved), strategy.std(state))
    np.testing.assert_allclose(strategy.ask(key, moved)[0], strategy.ask(key, state)[0] + shift, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["hill-climbing", "gradientless-descent"])
def test_a_moved_mean_stays_where_no_member_is_better(name: str) -> None:
    strategy = ready(name)
    moved = strategy.with_mean(evolved(name), jnp.ones(DIMS))
    population, asked = strategy.ask(jax.random.key(0), moved)
    told = strategy.tell(jax.random.key(0), population, jnp.full(POPULATION, 1e9), asked)
    np.testing.assert_array_equal(strategy.mean(told), jnp.ones(DIMS))


# hyper-parameters

# values that differ from the defaults enough to be seen, and what else must be set for that
VALUES: dict[str, float] = {
    "elite_ratio": 0.25, "std_min": 1.0, "std_max": 0.1, "mu_eff": 2.0, "c_mean": 0.5, "c_std": 0.35, "d_std": 3.0,
    "chi_n": 2.0, "c_c": 0.35, "c_1": 0.2, "c_mu": 0.15, "c1": 0.05, "alpha_dist": 0.1, "lr": 0.07, "lr_decay": 0.5,
    "lr_min": 0.5, "sigma_decay": 0.7, "sigma_min": SIGMA, "std_lr": 0.05, "std_max_change": 0.01, "lr_std": 0.4,
    "lr_std_init": 0.4, "lr_B": 0.4, "lr_mean": 0.5, "lr_move_std": 0.5, "lr_stag_std": 0.1, "lr_conv_std": 0.1,
    "temperature": 3.0, "eta_std": 0.3, "eta_shift": 0.3, "eta_avs_inc": 1.5, "eta_avs_dec": 0.5, "nis_max_gens": 1,
    "delta_ams": 1.0, "theta_sdr": 1e9, "c_mult_init": 2.0, "std_floor": 0.3, "m": 3, "T": 1, "q_star": 0.1,
    "subspace_dims": 3, "max_context_len": 3, "temperature_init": 0.01, "temperature_limit": 0.999,
    "temperature_decay": 0.1, "boltzmann_constant": 1e-4, "radius_min": 0.1, "radius_decay": 1.0,
}  # fmt: skip
BESIDE: dict[str, dict[str, float]] = {
    "lr_min": {"lr": 1.0, "lr_decay": 0.5},
    "sigma_min": {"sigma_decay": 0.5},
    "T": {"m": 3},
    "temperature_limit": {"boltzmann_constant": 1.0},
    "temperature_decay": {"boltzmann_constant": 1.0},
}


def trajectory(name: str, settings: Mapping[str, float]) -> list[jax.Array]:
    """Means and populations of a short search on a noisy loss, without compiling anything."""
    known = STRATEGIES[name].value.settings
    base = {"max_context_len": 5.0} if name == "evotf-es" else {}
    settings = {key: value for key, value in (base | dict(settings)).items() if key in known}
    strategy = make_strategy(name, POPULATION, DIMS, SIGMA, settings)
    seen: list[jax.Array] = []
    with jax.disable_jit():
        state = strategy.init(jax.random.key(0), jnp.zeros(DIMS))
        for i in range(9):
            key = jax.random.key(i)
            population, state = strategy.ask(key, state)
            noise = 20 * jax.random.normal(key, (POPULATION,))
            state = strategy.tell(key, population, loss(population) + noise, state)
            seen += [population, strategy.mean(state)]
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_hyperparameters_reach_the_algorithm(name: str) -> None:
    known = STRATEGIES[name].value.settings
    plain: dict[str, list[jax.Array]] = {}
    for key in known:
        beside = {k: v for k, v in BESIDE.get(key, {}).items() if k in known}
        case = str(sorted(beside.items()))
        if case not in plain:
            plain[case] = trajectory(name, beside)
        assert not same(trajectory(name, beside | {key: VALUES[key]}), plain[case]), key
