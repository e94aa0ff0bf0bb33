"""Returns are those of episodes played one by one, and whatever a population shares stays exact."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from es.coordinates import Space
from es.network import Network
from es.tasks.control import ControlTask
from es.tasks.environments import SUITES, Continuous, Discrete, Environment, is_environment, make_environment
from es.tasks.episodes import Moments, action_of, rollout
from es.translation.functions import to_jax, torch_network
from lottery.networks.models import MODELS
from pruning.errors import BadValue, UnknownName, UsageError

STATISTICS = ("observations.mean", "observations.var", "observations.count")
CLASSIC = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
MINATAR = ["Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar"]

TWO = Discrete(2)


def countdown(action: Discrete | Continuous = TWO, limit=10) -> Environment:
    """Lasts 2 to 7 steps, by its key; observes (key's number, steps taken); rewards the action itself."""

    def observation(state):
        return jnp.stack([state["ends"], state["time"]]).astype(jnp.float32)

    def reset(key):
        state = {"ends": jax.random.randint(key, (), 2, 8), "time": jnp.int32(0)}
        return observation(state), state

    def step(key, state, taken):
        new = {"ends": state["ends"], "time": state["time"] + 1}
        reward = jnp.asarray(taken, jnp.float32).sum()
        return observation(new), new, reward, new["time"] >= new["ends"]

    return Environment("test:countdown", (2,), action, limit, reset, step)


def normalize(observations: jax.Array, moments: Moments) -> jax.Array:
    """Return what a policy's first layer makes of observations: standardized and clipped to ±10, as is before any."""
    scaled = (observations - moments.mean) / jnp.sqrt(moments.var + 1e-8)
    return jnp.where(moments.count > 0, jnp.clip(scaled, -10.0, 10.0), observations)


def linear(environment, statistics=False):
    """One layer [outputs, inputs], as torch stores it."""
    size = int(np.prod(environment.observation_shape))
    params = {"w": np.zeros((environment.outputs, size), np.float32), "b": np.zeros(environment.outputs, np.float32)}
    if statistics:
        shape = environment.observation_shape
        params |= dict(zip(STATISTICS, (np.zeros(shape, "f4"), np.ones(shape, "f4"), np.float32(0)), strict=True))

    def apply(params, observations):
        if statistics:
            mean, var, count = (params[name] for name in STATISTICS)
            observations = normalize(observations, Moments(count, mean, var))
        return observations.reshape(len(observations), -1) @ params["w"].T + params["b"]

    return params, Network(apply, ("w", "b"))


def task_of(environment, statistics=False, **settings: Any):
    params, network = linear(environment, statistics)
    task = ControlTask(environment, network, Space.of(params, network.evolved), params=params, **settings)
    fixed = {name: jnp.asarray(params[name]) for name in params if name not in network.evolved}
    return task, params, fixed


def everything(task):
    return np.arange(task.space.size, dtype=np.int32)


def generation(task):
    def run(data, where, population, fixed, key):
        got, seen = task.losses(data, where, population, fixed, key)
        return got, task.after_generation(fixed, seen)

    return run


@cache
def compiled(task):
    return jax.jit(generation(task))


def losses(task, population, fixed, key=0):
    return compiled(task)(task.data, everything(task), jnp.asarray(population), fixed, jax.random.key(key))


def lengths(keys):
    """How long each episode of `countdown` lasts, from the keys of the episodes."""
    return [int(jax.random.randint(jax.random.split(key)[0], (), 2, 8)) for key in keys]


def always_one(task):
    """A population of two: the first never takes action 1, the second always."""
    population = np.zeros((2, task.space.size), np.float32)
    population[:, -2:] = [[1, 0], [0, 1]]
    return population


def test_a_return_is_the_sum_of_the_rewards_until_the_end():
    task, _, fixed = task_of(countdown(), episodes=5)
    got, same = losses(task, always_one(task), fixed)
    expected = np.mean(lengths(jax.random.split(jax.random.key(0), 5)))
    np.testing.assert_allclose(got, np.array([0, -expected]), rtol=1e-6)
    assert got.dtype == jnp.float32 and not same


@pytest.mark.parametrize(("asked", "limit", "cap"), [(3, 10, 3), (None, 4, 4), (9, 4, 4)])
def test_episodes_are_cut_at_the_lower_limit(asked, limit, cap):
    task, _, fixed = task_of(countdown(limit=limit), episodes=6, max_steps=asked)
    expected = np.minimum(lengths(jax.random.split(jax.random.key(0), 6)), cap).mean()
    assert task.steps == cap
    assert losses(task, always_one(task), fixed)[0][1] == pytest.approx(-expected)


def test_the_loop_stops_when_all_episodes_have_ended():
    played = []
    environment = countdown(limit=10_000)

    def step(key, state, action):
        jax.debug.callback(lambda time: played.append(int(time)), state["time"])
        return environment.step(key, state, action)

    task, _, fixed = task_of(replace(environment, step=step), episodes=2)
    jax.block_until_ready(losses(task, always_one(task), fixed))
    jax.effects_barrier()
    assert max(played) + 1 == max(lengths(jax.random.split(jax.random.key(0), 2)))


def test_all_members_play_the_same_episodes_and_other_keys_other_episodes():
    task, _, fixed = task_of(make_environment("gymnax:CartPole-v1"), episodes=3)
    member = np.random.default_rng(0).normal(size=(1, task.space.size)).astype(np.float32)
    got, _ = losses(task, np.repeat(member, 4, 0), fixed)
    assert len(set(got.tolist())) == 1
    assert len({float(losses(task, member, fixed, key)[0][0]) for key in range(5)}) > 1


def test_a_member_with_outputs_that_are_no_numbers_harms_no_other():
    for environment in (countdown(), countdown(Continuous(np.zeros(2, "f4"), np.ones(2, "f4")))):
        task, _, fixed = task_of(environment, statistics=True, episodes=4)
        good = np.random.default_rng(0).normal(size=(3, task.space.size)).astype(np.float32)
        bad = good.copy()
        bad[1, 0] = np.nan
        (expected, _), (got, statistics) = losses(task, good, fixed), losses(task, bad, fixed)
        assert np.isnan(got[1])
        np.testing.assert_array_equal(np.delete(got, 1), np.delete(expected, 1))
        assert all(np.isfinite(array).all() for array in statistics.values())


def test_observations_that_are_not_finite_are_not_counted():
    environment = countdown()

    def step(key, state, action):
        observation, state, reward, done = environment.step(key, state, action)
        return observation.at[0].set(jnp.inf), state, reward, done

    task, _, fixed = task_of(replace(environment, step=step), statistics=True, episodes=4)
    _, statistics = losses(task, always_one(task), fixed)
    assert statistics["observations.count"] == 2 * 4 and np.isfinite(statistics["observations.mean"]).all()


def test_statistics_are_those_of_all_observations_that_were_acted_on():
    task, _, fixed = task_of(countdown(limit=6), statistics=True, episodes=7)
    seen = []
    for key in range(3):
        _, fixed = losses(task, np.zeros((4, task.space.size), np.float32), fixed, key)
        for ends in lengths(jax.random.split(jax.random.key(key), 7)):
            seen += 4 * [(ends, time) for time in range(min(ends, 6))]
    assert fixed["observations.count"] == len(seen)
    np.testing.assert_allclose(fixed["observations.mean"], np.mean(seen, 0), rtol=1e-5)
    np.testing.assert_allclose(fixed["observations.var"], np.var(seen, 0), rtol=1e-5)
    assert {array.dtype for array in fixed.values()} == {jnp.dtype("float32")}


def test_moments_far_from_zero_keep_their_precision():
    values = np.random.default_rng(0).normal(1000, 0.1, (50, 40, 3))
    total = Moments(jnp.zeros(()), jnp.zeros(3), jnp.zeros(3))
    for block in values.astype(np.float32):
        total = total.merge(Moments.of(jnp.asarray(block), jnp.ones(40, bool)))
    np.testing.assert_allclose(total.var, values.astype(np.float32).var((0, 1), dtype=np.float64), rtol=1e-2)
    np.testing.assert_allclose(total.mean, values.mean((0, 1)), rtol=1e-6)


def test_members_of_a_generation_see_the_statistics_from_before_it():
    environment = countdown()
    task, _, fixed = task_of(environment, statistics=True, episodes=3)
    plain, _, nothing = task_of(environment, episodes=3)
    population = np.random.default_rng(1).normal(size=(5, task.space.size)).astype(np.float32)
    np.testing.assert_array_equal(losses(task, population, fixed)[0], losses(plain, population, nothing)[0])


def test_statistics_that_do_not_fit_are_refused():
    task, _, fixed = task_of(countdown(), statistics=True)
    with pytest.raises(BadValue, match=r"observations.mean has shape \[3\], observations of test:countdown have \[2\]"):
        losses(task, always_one(task), {**fixed, "observations.mean": jnp.zeros(3)})


def test_replicates_stacked_are_replicates_one_by_one():
    task, _, fixed = task_of(make_environment("gymnax:CartPole-v1"), statistics=True, episodes=3, max_steps=60)
    rng = np.random.default_rng(0)
    where = np.stack([np.sort(rng.permutation(task.space.size)[:7]) for _ in range(3)]).astype(np.int32)
    population = jnp.asarray(rng.normal(size=(3, 4, 7)), jnp.float32)
    stacked = {name: jnp.stack([array, array + 1, array]) for name, array in fixed.items()}
    keys = jax.random.split(jax.random.key(5), 3)
    mapped = jax.jit(jax.vmap(generation(task), in_axes=(None, 0, 0, 0, 0)))
    together, after = mapped((), where, population, stacked, keys)
    for r in range(3):
        one = {name: array[r] for name, array in stacked.items()}
        alone, then = jax.jit(generation(task))((), where[r], population[r], one, keys[r])
        np.testing.assert_allclose(together[r], alone, rtol=1e-6)
        for name in STATISTICS:
            np.testing.assert_allclose(after[name][r], then[name], rtol=1e-4, atol=1e-6)


def test_generations_run_inside_a_compiled_loop():
    task, _, fixed = task_of(countdown(), statistics=True, episodes=2)
    population = jnp.asarray(always_one(task))

    def body(i, fixed):
        return generation(task)((), everything(task), population, fixed, jax.random.fold_in(jax.random.key(0), i))[1]

    after = jax.jit(lambda fixed: jax.lax.fori_loop(0, 3, body, fixed))(fixed)
    assert after["observations.count"] > fixed["observations.count"]


def test_cartpole_equals_a_loop_over_its_steps():
    library, params = gymnax.make("CartPole-v1")
    task, _, fixed = task_of(make_environment("gymnax:CartPole-v1"), episodes=2, max_steps=40)
    member = np.random.default_rng(3).normal(size=task.space.size).astype(np.float32)
    w, b = member[:8].reshape(2, 4), member[8:]
    returns = []
    for key in jax.random.split(jax.random.key(0), 2):
        start, later = jax.random.split(key)
        observation, state = library.reset_env(start, params)
        total = 0.0
        for time in range(40):
            action = int(np.argmax(w @ np.asarray(observation) + b))
            observation, state, reward, done, _ = library.step_env(
                jax.random.fold_in(later, time), state, action, params
            )
            total += float(reward)
            if done:
                break
        returns.append(total)
    assert losses(task, member[None], fixed)[0][0] == pytest.approx(-np.mean(returns))


def test_validation_and_test_episodes_are_disjoint_and_always_the_same():
    task, params, _ = task_of(countdown(), validation_episodes=5, test_episodes=4, seed=3)
    data = np.asarray(jax.random.key_data(task.evaluation_keys))
    assert len(np.unique(data, axis=0)) == 9
    params = {**params, "b": np.array([0, 1], np.float32)}
    measured = task.measure(params)
    assert measured == task.measure(params)
    played = lengths(task.evaluation_keys)
    assert (
        measured.validation == pytest.approx(np.mean(played[:5])) and measured.validation_loss == -measured.validation
    )
    assert measured.test == pytest.approx(np.mean(played[5:]))
    assert measured.test_loss == pytest.approx(-np.mean(played[5:]))
    other = np.asarray(jax.random.key_data(replace(task, seed=4).evaluation_keys))
    assert not (data == other).all(1).any()


def test_more_test_episodes_leave_the_validation_episodes_alone():
    few, _, _ = task_of(countdown(), validation_episodes=3, test_episodes=0)
    many, params, _ = task_of(countdown(), validation_episodes=3, test_episodes=9)
    assert few.measure(params).validation == many.measure(params).validation
    assert few.measure(params).test is None and few.measure(params).test_loss is None


def test_networks_are_measured_by_one_compilation():
    task, params, _ = task_of(countdown())
    traces = []

    def apply(params, observations):
        traces.append(1)
        return observations @ params["w"].T + params["b"]

    task = replace(task, network=Network(apply, ("w", "b")))
    for value in (0, 1, 2):
        task.measure({**params, "b": np.full(2, value, np.float32)})
    assert len(set(traces)) == 1 and len(traces) <= 2


def test_flops_count_the_network_and_grow_with_the_episodes():
    task, _, _ = task_of(countdown(limit=10), episodes=3)
    assert replace(task, params=None).flops == 2 * task.space.size * 3 * 10
    assert task.flops == pytest.approx(3 * 10 * (2 * 4 + 2))
    assert replace(task, episodes=6).flops == 2 * task.flops


def test_actions_are_the_highest_output_or_scaled_to_the_bounds():
    assert action_of(Discrete(3), jnp.array([[0.0, 2.0, 1.0]])).tolist() == [1]
    box = Continuous(np.array([[-2.0], [0.0]], np.float32), np.array([[2.0], [10.0]], np.float32))
    got = action_of(box, jnp.array([[0.0, 0.0], [100.0, -100.0], [0.5, 0.5]]))
    assert got.shape == (3, 2, 1)
    np.testing.assert_allclose(got[:2, :, 0], [[0, 5], [2, 0]], atol=1e-6)
    np.testing.assert_allclose(got[2, :, 0], [2 * np.tanh(0.5), 5 + 5 * np.tanh(0.5)], rtol=1e-6)
    with pytest.raises(BadValue, match="finite bounds"):
        Continuous(np.array([-np.inf], "f4"), np.array([np.inf], "f4"))


def test_a_network_with_other_outputs_is_refused():
    task, _, fixed = task_of(countdown())
    with pytest.raises(BadValue, match=r"test:countdown takes 3 outputs of the network, not outputs of shape \[2\]"):
        losses(replace(task, environment=countdown(Discrete(3))), always_one(task), fixed)


@pytest.mark.parametrize("setting", ["episodes", "max_steps", "validation_episodes"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(BadValue, match=f"{setting} must be at least 1, not 0"):
        task_of(countdown(), False, **{setting: 0})


@pytest.mark.parametrize("name", CLASSIC + MINATAR)
def test_environments_of_gymnax_roll(name):
    environment = make_environment(f"gymnax:{name}")

    def play(keys):
        def act(observations):
            return jnp.zeros((*observations.shape[:2], environment.outputs))

        return rollout(environment, act, keys, members=2, steps=3, observed=True)

    # Three steps are sooner played than compiled well.
    quickly = jax.jit(play, compiler_options={"xla_backend_optimization_level": 0})
    returns, moments = quickly(jax.random.split(jax.random.key(0), 2))
    assert returns.shape == (2, 2) and np.isfinite(returns).all() and returns.dtype == jnp.float32
    assert moments.count.tolist() == [6, 6] and moments.mean.shape == (2, *environment.observation_shape)
    assert (environment.max_steps or 0) >= 200 and (len(environment.observation_shape) == 3) == (name in MINATAR)


def test_the_registry_knows_its_suites_and_texts_that_name_environments():
    assert SUITES.names() == ["brax", "gymnax"]
    assert is_environment("gymnax:anything") and is_environment("brax:ant")
    assert not any(is_environment(text) for text in ("gymnax", "digits", "my.module:name", "./a:b", ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gymnax:CartPole", "unknown gymnax environment 'CartPole': did you mean 'CartPole-v1'"),
        ("gymnas:CartPole-v1", "unknown environment suite 'gymnas': did you mean 'gymnax'?"),
        ("CartPole-v1", "environment 'CartPole-v1': expected suite:name, like gymnax:CartPole-v1"),
    ],
)
def test_unknown_environments_get_the_nearest_name(text, message):
    with pytest.raises(UnknownName, match=message.replace("?", r"\?")):
        make_environment(text)


@pytest.mark.parametrize("missing", ["gymnax", "six"])
def test_a_missing_suite_says_what_to_install(missing, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] in ("gymnax", "six")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError) as error:
        make_environment("gymnax:CartPole-v1")
    assert str(error.value) == "gymnax:CartPole-v1 needs gymnax: pip install 'lottery-tickets[gymnax]'"


def test_a_missing_brax_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(UsageError, match=r"^brax:ant needs brax: pip install 'lottery-tickets\[brax\]'$"):
        make_environment("brax:ant")


@pytest.mark.parametrize("shape", [(4,), (10, 10, 4), (10, 5)], ids=str)
def test_the_policy_normalizes_its_observations_as_the_task_does(shape):
    torch.manual_seed(0)
    module = MODELS["policy"].value(shape, 3)
    names = {name for name, _ in module.named_buffers()}
    assert names == set(STATISTICS) and {b.dtype for b in module.buffers()} == {torch.float32}
    network = torch_network(module, torch.zeros(2, *shape))
    params = {name: to_jax(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    raw = jax.random.normal(jax.random.key(0), (5, *shape)) * 100
    mean, var = jnp.full(shape, 3.0), jnp.full(shape, 25.0)
    seen = {**params, **dict(zip(STATISTICS, (mean, var, jnp.float32(9)), strict=True))}
    ready = normalize(raw, Moments(jnp.float32(9), mean, var))
    assert np.abs(ready).max() == 10
    np.testing.assert_allclose(network.apply(seen, raw), network.apply(params, ready), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(normalize(raw, Moments(jnp.float32(0), mean, var)), raw)


def test_the_policy_has_the_sizes_of_the_paper():
    shapes = {name: tuple(p.shape) for name, p in MODELS["policy"].value((4,), 2).named_parameters() if p.ndim > 1}
    assert shapes == {"fc1.weight": (64, 4), "fc2.weight": (64, 64), "head.weight": (2, 64)}
    shapes = {n: tuple(p.shape) for n, p in MODELS["policy"].value((10, 10, 6), 4).named_parameters() if p.ndim > 1}
    assert shapes == {"conv.weight": (16, 6, 3, 3), "fc.weight": (48, 1600), "head.weight": (4, 48)}


def test_the_policy_is_evolved_through_its_translation():
    torch.manual_seed(0)
    environment = make_environment("gymnax:CartPole-v1")
    module = MODELS["policy"].value(environment.observation_shape, environment.outputs)
    network = torch_network(module, torch.zeros(2, 4))
    params = {name: to_jax(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    space = Space.of({name: np.asarray(array) for name, array in params.items()}, network.evolved)
    task = ControlTask(environment, network, space, episodes=2, max_steps=30, validation_episodes=2, test_episodes=2)
    fixed = {name: params[name] for name in STATISTICS}
    start = jnp.concatenate([params[name].ravel() for name in network.evolved])
    population = start + 0.1 * jax.random.normal(jax.random.key(0), (4, space.size))
    got, after = losses(task, population, fixed)
    assert got.shape == (4,) and (got < 0).all() and after["observations.count"] == -2 * got.sum()
    assert task.measure({**params, **after}).validation > 0
