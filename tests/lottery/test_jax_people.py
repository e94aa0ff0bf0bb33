"""Searches of what JAX people bring: modules of Flax and Equinox, and tickets that come back in the same form."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lottery import Data, Fitness, Ticket, find_ticket, train_ticket
from lottery.data.episodes import given_episodes, load_episodes
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import model_source
from lottery.runs.directory import RunDirectory
from pruning.errors import BadValue, DataError, MaskMismatch
from tests.lottery.helpers import blobs, removed

PARTS = prepare(Data(train=blobs(96), validation=blobs(30, seed=1)), 0)
DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
TINY: dict[str, Any] = {"trainer": "es", "generations": 2, "population": 4, "batch_size": 32, "levels": 1}
TINY |= {"tolerance": 1.0, "eval_every": 2, "quiet": True}


class Linen(linen.Module):
    width: int = 8

    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(self.width)(x))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(linen.relu(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first, self.second = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))


def equinox(key: Any) -> eqx.nn.MLP:
    return eqx.nn.MLP(6, 3, 8, 1, key=key)


def hits(outputs: Any) -> float:
    return float((np.asarray(outputs).argmax(1) == blobs(30, seed=1)[1]).mean())


VALIDATION = blobs(30, seed=1)[0]


class TestModules:
    def test_a_linen_module(self, tmp_path):
        ticket = find_ticket(Linen(), DATA, replicates=2, out=tmp_path, **TINY)
        assert list(ticket.mask) == ["Dense_0.kernel", "Dense_1.kernel"]
        assert "batch_stats.BatchNorm_0.mean" in ticket.params
        assert ticket.trained_params is not None
        assert (removed(ticket.mask, ticket.trained_params) == 0).all()
        assert ticket.path is not None
        again = Ticket.load(ticket.path)
        trained, rewound = again.trained(Linen()), again.rewound(Linen())
        assert hits(Linen().apply(trained, VALIDATION, train=False)) == pytest.approx(ticket.info["validation"])
        variables: Any = Linen().init(jax.random.key(ticket.info["seed"]), VALIDATION[:8])
        kernel = variables["params"]["Dense_0"]["kernel"]
        np.testing.assert_array_equal(rewound["params"]["Dense_0"]["kernel"], kernel * ticket.mask["Dense_0.kernel"])
        assert isinstance(trained["batch_stats"]["BatchNorm_0"]["mean"], jax.Array)
        card = (ticket.path / "README.md").read_text()
        assert "variables = ticket.trained(module)" in card and "library_name: jax" in card
        with pytest.raises(MaskMismatch, match="shape"):
            again.trained(Linen(9))
        both = again.trained((trained, Linen()))
        np.testing.assert_array_equal(both[0]["params"]["Dense_0"]["kernel"], trained["params"]["Dense_0"]["kernel"])
        further = train_ticket(again, Linen(), DATA, settings={"strategy": "pgpe"}, out=tmp_path)
        assert RunDirectory(further.run).read_mask(0, 0) == ticket.mask

    def test_an_nnx_module(self, tmp_path):
        module = Nnx(nnx.Rngs(0))
        ticket = find_ticket(module, DATA, out=tmp_path, **TINY)
        assert list(ticket.mask) == ["first.kernel", "second.kernel"]
        trained = ticket.trained(module)
        assert isinstance(trained, Nnx) and not trained.dropout.deterministic
        trained.eval()
        assert hits(trained(VALIDATION)) == pytest.approx(ticket.info["validation"])
        np.testing.assert_array_equal(module.first.kernel[...], Nnx(nnx.Rngs(0)).first.kernel[...])
        with pytest.raises(BadValue, match="2 replicates need a callable"):
            find_ticket(module, DATA, replicates=2, out=tmp_path, **TINY)

    def test_an_equinox_module(self, tmp_path):
        module = equinox(jax.random.PRNGKey(0))
        ticket = find_ticket(module, DATA, out=tmp_path, **TINY)
        assert list(ticket.mask) == ["layers.0.weight", "layers.1.weight"]
        trained = ticket.trained(module)
        assert isinstance(trained, eqx.nn.MLP) and eqx.is_inexact_array(trained.layers[0].bias)
        assert hits(jax.vmap(trained)(jnp.asarray(VALIDATION))) == pytest.approx(ticket.info["validation"])

    @pytest.mark.parametrize("make", [Nnx, equinox, lambda seed: Nnx(nnx.Rngs(seed)), lambda seed: Linen(), Linen])
    def test_a_maker_gives_other_weights_for_another_seed(self, make):
        source = model_source(make, PARTS, "model")
        states = [source.initial_state(seed) for seed in (0, 0, 1)]
        name = next(iter(source.prunable(0, (), ())))
        assert source.varies
        assert np.array_equal(states[0][name], states[1][name]) and not np.array_equal(states[0][name], states[2][name])

    def test_a_pattern_removes_outputs_along_the_right_axis_of_a_kernel(self, tmp_path):
        ticket = find_ticket(Linen(), DATA, pattern="rows", criterion="magnitude", out=tmp_path, **TINY)
        kept = ticket.mask["Dense_0.kernel"]
        assert list(ticket.mask) == ["Dense_0.kernel"]
        assert kept.shape == (6, 8) and (kept.all(0) | ~kept.any(0)).all()

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (Linen, lambda: Linen(9)),
            (lambda: Nnx(nnx.Rngs(0)), lambda: Nnx(nnx.Rngs(1))),
            (lambda: equinox(jax.random.key(0)), lambda: eqx.nn.MLP(6, 3, 8, 1, jax.nn.gelu, key=jax.random.key(0))),
        ],
    )
    def test_one_module_is_one_experiment_and_another_is_another(self, one, other):
        prints = [model_source(make(), PARTS, "model").fingerprint(0) for make in (one, one, other)]
        assert prints[0] == prints[1] != prints[2]

    def test_what_fails_in_a_module_is_one_line(self, tmp_path):
        class Wrong(linen.Module):
            @linen.compact
            def __call__(self, x: Any) -> Any:
                return linen.Dropout(0.5, deterministic=False)(linen.Dense(3)(x))

        with pytest.raises((BadValue, DataError), match="InvalidRngError"):
            find_ticket(Wrong(), DATA, out=tmp_path, **TINY)
        with pytest.raises(BadValue, match="this model is in JAX: use trainer 'es'"):
            find_ticket(Linen(), DATA, out=tmp_path)
        ticket = find_ticket(equinox, DATA, out=tmp_path, **TINY)
        with pytest.raises(BadValue, match="this model is in JAX, which runs sparse while it is evolved"):
            ticket.sparse(equinox, VALIDATION)


def sphere(params: Any, key: Any) -> Any:
    """Best where every weight is 1; the key adds noise to the goal."""
    goal = 1 + 0.01 * jax.random.normal(key)
    return -((params["w"] - goal) ** 2).mean()


class TestFitness:
    PARAMS: Any = {"w": np.zeros((4, 4), np.float32), "steps": 3}  # noqa: RUF012

    def test_parameters_and_a_function_of_them_are_enough(self, tmp_path):
        settings: dict[str, Any] = {**TINY, "generations": 20, "population": 16}
        ticket = find_ticket(self.PARAMS, sphere, out=tmp_path, **settings)
        search = ticket.search
        assert search is not None and search.metric == "fitness" and search.higher_is_better
        trained = ticket.trained(self.PARAMS)
        assert trained["steps"] == 3 and float(trained["w"].mean()) > 0
        assert ticket.info["validation"] != ticket.info["test"]
        assert find_ticket(self.PARAMS, sphere, out=tmp_path, **settings).path == (ticket.path)

    def test_a_cost_is_fitness_the_other_way_round(self, tmp_path):
        cost = Fitness(lambda params: -sphere(params, jax.random.key(0)), higher_is_better=False, name="cost")
        search = find_ticket((self.PARAMS, lambda p, x: x), cost, out=tmp_path, **TINY).search
        assert search is not None and not search.higher_is_better
        best = search.levels[0].replicates[0].history[-1]
        assert best.validation is not None and best.validation_loss == best.validation > 0

    def test_it_sees_a_module_where_a_module_was_given(self, tmp_path):
        def fitness(module: Nnx, key: Any) -> Any:
            return -(module(jax.random.normal(key, (4, 6))) ** 2).mean()

        assert list(find_ticket(Nnx, fitness, out=tmp_path, **TINY).mask) == ["first.kernel", "second.kernel"]

    def test_what_is_wrong_is_said(self, tmp_path):
        settings = {**TINY, "out": tmp_path}
        with pytest.raises(DataError, match="fitness function 'wrong' must return one number, not float32"):
            find_ticket(self.PARAMS, Fitness(lambda params, key: params["w"], name="wrong"), **settings)
        with pytest.raises(DataError, match="fitness function 'fitness' fails: KeyError: 'v'"):
            find_ticket(self.PARAMS, lambda params, key: params["v"], **settings)
        with pytest.raises(DataError, match="shows no batch .*: give parameters, a pair"):
            find_ticket(Linen(), sphere, **settings)
        with pytest.raises(BadValue, match="say which model sphere is for"):
            find_ticket(None, sphere, **settings)
        with pytest.raises(BadValue, match="a tree of parameters alone computes nothing from data: give the pair"):
            find_ticket(self.PARAMS, DATA, **settings)
        with pytest.raises(BadValue, match="sphere brings its own measure, the fitness; leave loss and metric out"):
            find_ticket(self.PARAMS, sphere, loss=lambda a, b: 0, **settings)


@dataclass(frozen=True)
class Params:
    goal: float = 1.0
    max_steps_in_episode: int = 5


class Walk:
    """Two actions move a point; rewards are the larger, the nearer it is to its goal. Of gymnax's kind, by hand."""

    num_actions = 2

    def reset(self, key: Any, params: Params) -> Any:
        place = 0.1 * jax.random.normal(key)
        return jnp.stack([place, params.goal]), place

    def step(self, key: Any, place: Any, action: Any, params: Params) -> Any:
        place = place + jnp.where(action == 1, 0.2, -0.2) + 0.01 * jax.random.normal(key)
        return jnp.stack([place, params.goal]), place, -jnp.abs(place - params.goal), False, {}


def policy(seed: int) -> Any:
    params = {"kernel": 0.1 * jax.random.normal(jax.random.key(seed), (2, 2)), "bias": jnp.zeros(2)}
    return params, lambda p, seen: seen @ p["kernel"] + p["bias"]


class TestEnvironments:
    def test_an_environment_with_its_parameters(self, tmp_path):
        search = find_ticket(policy, (Walk(), Params()), out=tmp_path, **TINY).search
        assert search is not None and search.metric == "reward" and "walk" in search.run.name
        prints = [given_episodes((Walk(), Params(goal))).fingerprint() for goal in (1.0, 1.0, -1.0)]
        assert prints[0] == prints[1] != prints[2]

    def test_an_environment_of_gymnax(self, tmp_path):
        gymnax = pytest.importorskip("gymnax")
        environment, params = gymnax.make("CartPole-v1")
        module = eqx.nn.MLP(4, 2, 4, 1, key=jax.random.key(0))
        settings = {**TINY, "episode_steps": 20, "test_episodes": 4}
        assert find_ticket(module, (environment, params), out=tmp_path, **settings).info["validation"] > 5
        named = load_episodes("gymnax:CartPole-v1").environment
        for given in ((environment, params), environment):
            own = given_episodes(given).environment
            assert (own.observation_shape, own.action, own.max_steps) == ((4,), named.action, named.max_steps)

    def test_an_environment_of_the_kind_of_brax(self):
        class Body:
            observation_size, action_size = 3, 2

            def reset(self, key: Any) -> Any:
                return SimpleNamespace(obs=jnp.zeros(3), reward=0.0, done=jnp.zeros(()))

            def step(self, state: Any, action: Any) -> Any:
                return SimpleNamespace(obs=state.obs + action.sum(), reward=1.0, done=jnp.ones(()))

        jax.tree_util.register_pytree_node(
            SimpleNamespace,
            lambda held: (list(vars(held).values()), tuple(vars(held))),
            lambda names, values: SimpleNamespace(**dict(zip(names, values, strict=True))),
        )
        body = given_episodes(Body()).environment
        assert (body.observation_shape, body.outputs, body.max_steps) == ((3,), 2, 1000)
        observation, _, reward, done = body.step(jax.random.key(0), body.reset(jax.random.key(0))[1], jnp.ones(2))
        assert observation.tolist() == [2.0, 2.0, 2.0] and reward == 1.0 and done

    def test_rewards_and_strategies_where_jax_has_float64(self, tmp_path):
        with jax.enable_x64(True):
            ticket = find_ticket(policy, (Walk(), Params()), out=tmp_path, **TINY)
        assert ticket.params["kernel"].dtype == np.float64

    def test_what_is_no_environment_in_jax_is_said(self, tmp_path):
        class Endless:
            num_actions = 2

            def reset(self, key: Any) -> Any:
                return Walk().reset(key, Params())

            def step(self, key: Any, place: Any, action: Any) -> Any:
                return Walk().step(key, place, action, Params())

        class Python(Walk):
            def reset(self, key: Any, params: Params) -> Any:
                return [float(jax.random.normal(key))], 0.0

        with pytest.raises(BadValue, match="Endless does not say how long an episode lasts: set episode_steps"):
            find_ticket(policy, Endless(), out=tmp_path, **TINY)
        with pytest.raises(DataError, match="the environment 'Python' .its reset and step must be functions of JAX"):
            find_ticket(policy, (Python(), Params()), out=tmp_path, **TINY)
