"""What every strategy promises, over the registry; then what single ones do."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms.distribution_based import distribution_based_algorithms

from es.strategies import (
    LEFT_OUT,
    STRATEGIES,
    Setting,
    Strategy,
    get_strategy,
    make_strategy,
    require_per_weight_std,
    strategy_name,
)
from es.strategies.cma import cma_es, rm_es
from es.strategies.estimation import iamalgam_full, iamalgam_univariate, simple_es
from es.strategies.local_search import gradientless_descent, hill_climbing, simulated_annealing
from es.strategies.matrix_adaptation import lm_ma_es, ma_es
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
    """`run(seeds, means, generations, weight)`: two searches side by side."""
    made(name)  # outside of the compiled function: some read their parameters
    return quick_jit(jax.vmap(functools.partial(search, name), in_axes=(0, 0, None, None)))


SEEDS, MEANS = jnp.array([1, 2]), jnp.stack([jnp.zeros(DIMS), jnp.full(DIMS, 0.5)])


@functools.cache
def evolved(name: str) -> Any:
    """A state that is not trivial: after some generations on a quadratic with axes of different lengths."""
    return jax.tree.map(lambda leaf: leaf[0], runner(name)(SEEDS, MEANS, 40, 1.0))


def sampled(strategy: Strategy, state: Any, keys: int = 8000) -> jax.Array:
    """Populations of many asks, [keys, P, D]."""
    return quick_jit(jax.vmap(lambda key: strategy.ask(key, state)[0]))(jax.random.split(jax.random.key(7), keys))


def same(first: Any, second: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


# the standard deviation


def test_every_strategy_is_here() -> None:
    rest = "iamalgam-full iamalgam-univariate les lm-ma-es ma-es open-es pgpe rm-es sep-cma-es simple-es snes xnes"
    first = "ars asebo cma-anchored-les cma-es cr-fm-nes des esmc evotf-es gradientless-descent hill-climbing"
    assert set(f"{first} {rest} simulated-annealing".split()) <= set(NAMES)


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
    strategy = ready(name)
    std = np.asarray(strategy.std(strategy.init(jax.random.key(0), jnp.zeros(DIMS))))
    if name == "gradientless-descent":  # sigma is the radius of its first member, the largest
        assert np.all((std > 0) & (std < SIGMA))
    elif name == "cr-fm-nes":  # it begins with a random direction
        assert np.all((std >= SIGMA * 0.999) & (std < 2 * SIGMA))
    else:
        np.testing.assert_allclose(std, SIGMA, rtol=1e-5)


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
    np.testing.assert_allclose(
        jnp.std(members, axis=0), jnp.sqrt(around**2 + share * (1 - share) * shift**2), rtol=0.025
    )
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
    strategy, both = ready(name), runner(name)(SEEDS, MEANS, 3, 1.0)
    for i in range(2):
        key = jax.random.key(SEEDS[i])
        alone = strategy.init(key, MEANS[i])
        for step in range(3):
            alone = generation(strategy, jax.random.fold_in(key, step), alone)
        for stacked, single in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(stacked[i], single, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_improves_a_quadratic(name: str) -> None:
    ends = jax.vmap(made(name).mean)(runner(name)(SEEDS, MEANS, 150, 1.0))
    assert jnp.all(loss(ends) < 0.3 * loss(MEANS))


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_loss_gives_no_nan(name: str) -> None:
    end = runner(name)(SEEDS, MEANS, 30, 0.0)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(end.replace(best_fitness=0)))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_key_gives_the_same_bits(name: str) -> None:
    strategy, state = ready(name), evolved(name)
    first, again = (strategy.ask(jax.random.key(5), state)[0] for _ in range(2))
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(first, strategy.ask(jax.random.key(6), state)[0])
    assert same(jax.tree.map(lambda leaf: leaf[0], runner(name)(SEEDS, MEANS, 40, 1.0)), state)


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

# lines of a generation's program that are run one by one, before compiling them is quicker
LARGE = 1500


def others(setting: Setting) -> list[float]:
    """Values in a setting's range that are far from its default; the likeliest to be seen come first."""
    low, high, default = setting.low, setting.high, setting.default
    tried = [3.0, low + 1, default + 1] if setting.whole else [0.3, 3.0]
    tried += [0.05, 10.0] if math.isnan(default) else [4 * default, default / 4, 1000 * default, default / 1000]
    tried += [end for bound in (low, high) if math.isfinite(bound) for end in ((default + bound) / 2, bound)]
    tried = [value for value in dict.fromkeys(tried) if not math.isnan(value) and value != default]
    return list(filter(setting.allows, tried))


@functools.cache
def is_large(name: str) -> bool:
    strategy, key = made(name), jax.random.key(0)
    state = jax.eval_shape(strategy.init, key, jnp.zeros(DIMS))
    return len(str(jax.make_jaxpr(functools.partial(generation, strategy))(key, state)).splitlines()) > LARGE


# what else must be set for an effect to be seen
BESIDE: dict[str, dict[str, float]] = {
    "lr_min": {"lr": 1.0, "lr_decay": 0.5},
    "sigma_min": {"sigma_decay": 0.5},
    "c_std": {"chi_n": 9.0},
    "nis_max_gens": {"theta_sdr": 1e9},
    "temperature_limit": {"boltzmann_constant": 50.0, "temperature_decay": 0.1},
    "temperature_decay": {"boltzmann_constant": 50.0},
    # far from and near to a standstill, where CR-FM-NES has other rates
    "alpha_dist": {"chi_n": 0.1},
    "lr_move_std": {"chi_n": 0.1},
    "lr_conv_std": {"chi_n": 90.0},
}


def trajectory(name: str, settings: Mapping[str, float]) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Populations and means of a short search on a noisy loss; compiling would take longer than a few steps."""
    strategy = make_strategy(name, POPULATION, DIMS, SIGMA, settings)

    def step(key: jax.Array, state: Any) -> tuple[jax.Array, jax.Array, Any]:
        population, state = strategy.ask(key, state)
        noise = 20 * jax.random.normal(key, (POPULATION,))
        state = strategy.tell(key, population, loss(population) + noise, state)
        return population, strategy.mean(state), state

    init, step = quick_jit(strategy.init), quick_jit(step)
    with jax.disable_jit(not is_large(name)):
        state = init(jax.random.key(0), jnp.zeros(DIMS))
    for i in range(12):
        with jax.disable_jit(not is_large(name)):
            population, mean, state = step(jax.random.key(i), state)
        yield population, mean


@pytest.mark.parametrize("name", NAMES)
def test_hyperparameters_reach_the_algorithm(name: str) -> None:
    known = STRATEGIES[name].value.settings
    plain: dict[str, tuple[Iterator[Any], list[Any]]] = {}

    def seen_in(beside: dict[str, float], changed: dict[str, float]) -> bool:
        search, seen = plain.setdefault(str(beside), (trajectory(name, beside), []))
        for i, each in enumerate(trajectory(name, beside | changed)):
            if i == len(seen):
                seen.append(next(search))
            if not same(each, seen[i]):
                return True
        return False

    for key, setting in known.items():
        beside = {k: v for k, v in BESIDE.get(key, {}).items() if k in known}
        assert any(seen_in(beside, {key: value}) for value in others(setting)), f"{key} changes nothing"


@pytest.mark.parametrize("name", NAMES)
def test_a_hyperparameter_out_of_range_is_refused(name: str) -> None:
    for key, setting in STRATEGIES[name].value.settings.items():
        assert setting.allows(setting.default)
        assert others(setting) and all(map(setting.allows, others(setting)))
        beyond = [math.inf, -math.inf, setting.low - 1, setting.high + 1]
        for value in (*beyond, *([] if math.isnan(setting.default) else [math.nan])):
            with pytest.raises(BadValue, match=f"^{key} of strategy '{name}' must be "):
                make_strategy(name, POPULATION, DIMS, SIGMA, {key: value})


def refused(error: type[Exception], name: str, *sizes: Any, **settings: float) -> str:
    default: tuple[Any, ...] = (POPULATION, DIMS, SIGMA)
    population, dims, sigma = (*sizes, *default[len(sizes) :])
    with pytest.raises(error) as caught:
        make_strategy(name, population, dims, sigma, settings)
    assert type(caught.value) is error
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_out_of_range_says_the_range() -> None:
    assert refused(BadValue, "pgpe", lr=-1) == "lr of strategy 'pgpe' must be more than 0, not -1"
    want = "elite_ratio of strategy 'sep-cma-es' must be more than 0 and at most 0.5, not 0.9"
    assert refused(BadValue, "sep-cma-es", elite_ratio=0.9) == want
    assert refused(BadValue, "rm-es", m=1.5) == "m of strategy 'rm-es' must be a whole number, at least 1, not 1.5"
    want = "std_floor of strategy 'iamalgam-full' must be at least 0 and less than 1, not 1"
    assert refused(BadValue, "iamalgam-full", std_floor=1) == want
    assert refused(BadValue, "snes", 12, 8, 0.0) == "sigma must be more than 0, not 0"
    assert refused(BadValue, "snes", 12, 8, math.nan) == "sigma must be more than 0, not nan"
    assert refused(BadValue, "snes", 12, 0) == "strategy 'snes' has no weight to search"


def test_an_unknown_hyperparameter_gets_the_nearest_names() -> None:
    want = (
        "unknown snes hyper-parameter 'temprature': did you mean 'temperature'? (known: lr, lr_std_init, temperature)"
    )
    assert refused(UnknownName, "snes", temprature=1) == want
    assert refused(UnknownName, "les", lr=1) == "unknown les hyper-parameter 'lr': it has none"


def test_an_unknown_strategy_gets_the_nearest_names() -> None:
    for typed in ("sep_cma_es", "Sep_CMA_ES", "SepCMAES"):
        assert refused(UnknownName, typed) == f"unknown strategy '{typed}': did you mean 'sep-cma-es'?"
    for typed, right in (("DiscoveredES", "des"), ("OpenES", "open-es"), ("iAMaLGaM_Full", "iamalgam-full")):
        assert f"did you mean '{right}'?" in refused(UnknownName, typed)
    known = ", ".join(NAMES[:2])
    assert refused(UnknownName, "pgp").startswith(f"unknown strategy 'pgp': did you mean 'pgpe'? (known: {known}, ")


def test_every_evosax_name_is_known_or_left_out_for_a_reason() -> None:
    found = []
    for typed, kind in distribution_based_algorithms.items():
        for spelling in (typed, kind.__name__):
            with pytest.raises(UnknownName, match="is left out: it |did you mean '[a-z-]+'\\?$") as caught:
                get_strategy(spelling)
        found.append(str(caught.value).split("'")[1 if "is left out" in str(caught.value) else 3])
    assert refused(UnknownName, "guided-es") == (
        "strategy 'guided-es' is left out: it needs a gradient, and evolution here sees losses only"
    )
    assert len(set(found)) == len(found) and set(found) <= {*NAMES, *LEFT_OUT}


def test_a_population_that_does_not_fit_is_refused() -> None:
    want = "strategy 'pgpe' pairs its members and needs an even population, not 7: 6 or 8"
    assert refused(BadValue, "pgpe", 7) == want
    assert refused(BadValue, "esmc", 2) == "strategy 'esmc' needs a population of at least 4, not 2"
    assert refused(BadValue, "snes", 1) == "strategy 'snes' needs a population of at least 2, not 1"
    paired = {name for name in NAMES if STRATEGIES[name].value.paired}
    assert paired >= {"ars", "asebo", "cr-fm-nes", "esmc", "open-es", "pgpe"}
    for name in paired:
        assert "needs an even population, not 11: 10 or 12" in refused(BadValue, name, 11)
    for name in set(NAMES) - paired:
        make_strategy(name, 11, DIMS, SIGMA)


def test_matrices_beyond_the_limit_are_refused() -> None:
    assert refused(BadValue, "cma-es", 128, 11_274) == (
        "strategy 'cma-es' needs 2.8 GiB for 11,274 weights (6 matrices of 11,274 × 11,274 in float32), over the limit "
        "of 0.25 GiB or 3,344 weights at a population of 128; use 'sep-cma-es', which adapts the diagonal only"
    )
    make_strategy("xnes", 128, 715, SIGMA)
    assert "715 weights at a population of 128; use 'snes'" in refused(BadValue, "xnes", 128, 716)
    assert "a shorter max_context_len, or 'les'" in refused(BadValue, "evotf-es", 128, 11_274)
    assert set(LIMITED) >= {"asebo", "cma-es", "evotf-es", "iamalgam-full", "ma-es", "xnes"}


LIMITED = [entry.name for entry in STRATEGIES if entry.value.memory is not None]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LIMITED)))
def test_without_a_limit_the_state_grows_with_the_weights_and_not_with_their_square(name: str) -> None:
    def size(dims: int) -> int:
        strategy = make_strategy(name, POPULATION, dims, SIGMA)
        state = jax.eval_shape(strategy.init, jax.random.key(0), jnp.zeros(dims))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))

    assert size(1000) <= 20 * size(100)  # a square would be 100 times as large


@pytest.mark.parametrize("name", LIMITED)
def test_the_memory_that_is_claimed_is_what_the_compiled_generation_takes(name: str) -> None:
    population, dims = 16, 128
    kind = STRATEGIES[name].value
    values = kind.hyperparameters | ({"max_context_len": 8.0} if name == "evotf-es" else {})
    strategy = kind.make(population, dims, SIGMA, values)
    key, mean = jax.random.key(0), jnp.zeros(dims)
    state = jax.eval_shape(strategy.init, key, mean)
    members, fitness = jnp.zeros((population, dims)), jnp.zeros(population)
    needed = []
    for call in (
        jax.jit(strategy.ask).lower(key, state),
        jax.jit(strategy.tell).lower(key, members, fitness, state),
    ):
        size = call.compile().memory_analysis()
        assert size is not None
        needed.append(size.argument_size_in_bytes + size.output_size_in_bytes + size.temp_size_in_bytes)
    if name == "cma-es":  # LAPACK's syevd takes 2 D² numbers that the compiler does not see
        needed.append(needed[0] + 8 * dims**2)
    claimed = kind.memory(population, dims, values)[0] if kind.memory else 0
    assert 0.7 < claimed / max(needed) < 1.4


def test_one_standard_deviation_for_all_weights_ranks_nothing() -> None:
    suggested = ", ".join(PER_WEIGHT)
    with pytest.raises(BadValue) as caught:
        require_per_weight_std("open-es")
    assert str(caught.value) == (
        "strategy 'open-es' samples with one standard deviation for all weights, so |mean| / std ranks them as |mean| "
        f"does; use criterion magnitude, or one of {suggested}"
    )
    for name in PER_WEIGHT:
        require_per_weight_std(name)


# single strategies


def test_snes_with_a_temperature_has_the_papers_update() -> None:
    strategy = make_strategy("snes", 3, 2, 0.5, {"temperature": 12.0})
    state = strategy.init(jax.random.key(0), jnp.array([1.0, -1.0]))
    population = jnp.array([[1.5, -1.0], [0.5, -2.0], [1.0, 0.0]])
    told = strategy.tell(jax.random.key(0), population, jnp.array([3.0, 1.0, 2.0]), state)
    weights = np.exp(-12 * np.array([0.5, -0.5, 0.0]))
    weights /= weights.sum()
    z = np.array([[1.0, 0.0], [-1.0, -2.0], [0.0, 2.0]])
    rate = (3 + math.log(2)) / (5 * math.sqrt(2))
    np.testing.assert_allclose(strategy.mean(told), [1.0, -1.0] + 0.5 * weights @ z, rtol=1e-5)
    np.testing.assert_allclose(strategy.std(told), 0.5 * np.exp(rate / 2 * weights @ (z**2 - 1)), rtol=1e-5)


@pytest.mark.parametrize("name", ["ars", "open-es", "pgpe"])
def test_pairs_are_mirrored_and_credited_together(name: str) -> None:
    strategy = make_strategy(name, 8, 5, SIGMA)
    mean = jnp.arange(5.0)
    population, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0), mean))
    np.testing.assert_allclose(population[:4] - mean, mean - population[4:], atol=1e-6)
    for best in (2, 6):
        fitness = jnp.zeros(8).at[best].set(-1.0)
        told = strategy.tell(jax.random.key(2), population, fitness, state)
        assert jnp.array_equal(jnp.sign(strategy.mean(told) - mean), jnp.sign(population[best] - mean))


def test_pgpe_shrinks_its_std_after_the_update_down_to_its_floor() -> None:
    flat = {"sigma_decay": 0.5, "sigma_min": 0.1}
    for sigma, want in ((0.3, 0.15), (0.15, 0.1), (0.05, 0.05)):
        strategy = make_strategy("pgpe", 8, 5, sigma, flat)
        population, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0), jnp.zeros(5)))
        told = strategy.tell(jax.random.key(2), population, jnp.ones(8), state)
        np.testing.assert_allclose(strategy.std(told), want, rtol=1e-6)


@pytest.mark.parametrize("name", ["cma-es", "sep-cma-es", "ma-es", "lm-ma-es", "rm-es"])
def test_only_elites_move_the_mean(name: str) -> None:
    strategy = make_strategy(name, 10, 5, SIGMA, {"elite_ratio": 0.2})
    population, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0), jnp.zeros(5)))
    told = strategy.tell(jax.random.key(2), population, jnp.arange(10.0), state)
    weights = math.log(5.5) - np.log([1, 2])
    np.testing.assert_allclose(strategy.mean(told), weights @ population[:2] / weights.sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dims", [8, 2_000])
def test_sep_cma_es_learns_its_variances_as_fast_as_ros_and_hansen(dims: int) -> None:
    # a full matrix's rate, a thousand times less for 2,000 weights, would leave the first variances as they are
    strategy = make_strategy("sep-cma-es", 12, dims, 1.0, {"c_1": 0})
    population, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0), jnp.zeros(dims)))
    told = strategy.tell(jax.random.key(2), population, jnp.arange(12.0), state)
    weights = math.log(6.5) - np.log(np.arange(1, 7))
    weights /= weights.sum()
    mu_eff = 1 / np.sum(weights**2)
    estimate = weights @ np.asarray(population[:6]) ** 2
    c_mu = np.polyfit(estimate - 1, np.asarray(told.C) - 1, 1)[0]
    by_hand = 2 / mu_eff / (dims + math.sqrt(2)) ** 2 + (1 - 1 / mu_eff) * (2 * mu_eff - 1) / ((dims + 2) ** 2 + mu_eff)
    np.testing.assert_allclose(c_mu, (dims + 2) / 3 * by_hand, rtol=2e-3)


@pytest.mark.parametrize("name", ["ma-es", "lm-ma-es"])
def test_matrix_adaptation_does_not_depend_on_the_order_of_the_members(name: str) -> None:
    strategy = ready(name)
    population, state = strategy.ask(jax.random.key(1), evolved(name))
    order = jnp.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 11, 10])
    key, fitness = jax.random.key(2), loss(population)
    told = strategy.tell(key, population, fitness, state)
    mixed = strategy.tell(key, population[order], fitness[order], state.replace(z=state.z[order]))
    np.testing.assert_allclose(told.M, mixed.M, rtol=1e-4, atol=1e-5)
    assert jnp.max(jnp.abs(told.M - state.M)) > 1e-2


# those whose rates come from the number of weights and the population
SIZED = [
    "des",
    "sep-cma-es",
    "snes",
    *(name for name in PER_WEIGHT if STRATEGIES[name].value.distribution != "separable"),
]


@pytest.mark.parametrize(("name", "population", "dims"), [*((name, 0, 1) for name in SIZED), ("lm-ma-es", 40, 3)])
def test_few_weights_and_few_members_are_no_special_case(name: str, population: int, dims: int) -> None:
    population = population or STRATEGIES[name].value.smallest
    strategy = make_strategy(name, population, dims, SIGMA)

    @quick_jit
    def step(key: jax.Array, state: Any) -> Any:
        members, state = strategy.ask(key, state)
        assert members.shape == (population, dims)
        return strategy.tell(key, members, jnp.sum((members - 1) ** 2, axis=-1), state)

    state = quick_jit(strategy.init)(jax.random.key(0), jnp.zeros(dims))
    for i in range(3):
        state = step(jax.random.key(i), state)
    assert jnp.all(jnp.isfinite(strategy.mean(state))) and jnp.all(strategy.std(state) > 0)


BY_ELITES = [cma_es, rm_es, ma_es, lm_ma_es, simple_es, iamalgam_univariate, iamalgam_full]


@pytest.mark.parametrize("make", [*BY_ELITES, hill_climbing, simulated_annealing, gradientless_descent])
def test_the_next_mean_is_the_best_member_where_it_is_the_only_elite(make):
    kind = next(entry.value for entry in STRATEGIES if entry.value.make is make)
    one = {"elite_ratio": 0.25} if make in BY_ELITES else {}
    strategy = compiled(make(4, 2, SIGMA, kind.hyperparameters | one))
    members, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0), jnp.zeros(2)))
    told = strategy.tell(jax.random.key(2), members, jnp.array([3.0, 0.0, 2.0, 1.0]), state)
    np.testing.assert_allclose(strategy.mean(told), members[1], rtol=1e-5)


def test_messages_call_a_strategy_by_its_name_or_by_that_of_the_function_that_makes_it():
    found = [strategy_name("snes"), strategy_name(cma_es), strategy_name(functools.partial(cma_es, 4))]
    assert found == ["snes", "cma_es", "partial"]
