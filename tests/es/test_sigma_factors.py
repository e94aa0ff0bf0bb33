"""A standard deviation of its own for single tensors, and how large it is beside the weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from es.coordinates import by_tensor
from es.strategies import STRATEGIES, make_strategy
from es.strategies._scaled import scaled
from lottery import find_ticket
from lottery.data import Data
from pruning.errors import BadValue, UnknownName
from tests.es.helpers import job, trainer
from tests.lottery.helpers import blobs, tiny_model

MANY = [entry.name for entry in STRATEGIES if entry.value.distribution != "scalar"]


@pytest.mark.parametrize("name", MANY)
def test_the_first_population_has_sigma_times_the_factor(name: str) -> None:
    factors, mean = np.repeat([0.1, 1.0, 10.0], 4), jnp.arange(12.0)
    plain = make_strategy(name, 16, 12, 0.5)
    wide, first, second = scaled(plain, factors), jax.random.key(0), jax.random.key(1)
    state, same = wide.init(first, mean), plain.init(first, mean / factors)
    np.testing.assert_allclose(wide.std(state), plain.std(same) * factors, rtol=1e-5)
    np.testing.assert_allclose(wide.ask(second, state)[0], plain.ask(second, same)[0] * factors, rtol=1e-5)
    np.testing.assert_allclose(wide.mean(state), mean, rtol=1e-6)


def test_a_strategy_steps_by_its_own_measure() -> None:
    """One generation on x with factors is one on x / factors without."""
    plain, factors = make_strategy("snes", 16, 2, 0.5), np.array([0.25, 4.0])
    wide = scaled(plain, factors)
    keys, fitness = (jax.random.key(1), jax.random.key(2)), jnp.arange(16.0)
    means = []
    for strategy, start in ((plain, jnp.array([4.0, 2.0])), (wide, jnp.array([1.0, 8.0]))):
        state = strategy.init(jax.random.key(0), start)
        population, state = strategy.ask(keys[0], state)
        means.append(strategy.mean(strategy.tell(keys[1], population, fitness, state)))
    np.testing.assert_allclose(means[1], means[0] * factors, rtol=1e-5)


def test_a_trainer_gives_every_tensor_its_own_and_says_how_large_it_is() -> None:
    one = job()
    names = list(one.mask)
    (plain,) = trainer().train([one], frozenset({"std"}))
    made = trainer(sigma_factors={names[0]: 0.01})
    (found,) = made.train([one], frozenset({"std"}))
    assert plain.std is not None and found.std is not None
    keep = one.mask[names[0]]
    assert np.median(found.std[names[0]][keep]) < 0.1 * np.median(plain.std[names[0]][keep])
    beside = [each.facts["sigma_beside_weights"] for each in (plain, found)]
    live = one.params[names[0]][keep]
    assert beside[0][names[0]] == pytest.approx(made.config.sigma / np.std(live))
    assert beside[1][names[0]] == pytest.approx(0.01 * beside[0][names[0]])


def test_with_factors_networks_evolve_one_after_the_other() -> None:
    made = trainer(sigma_factors={"*": 1.0})
    assert not made.together([job(seed) for seed in range(3)], frozenset())
    assert by_tensor(made.space, made.sigma_factors).tolist() == [1.0] * made.space.size


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"strategy": "open-es", "sigma_factors": {"*": 2.0}}, BadValue, "a sigma for every weight .*not 'open-es'"),
        ({"sigma_factors": {"fc9": 2.0}}, UnknownName, "sigma_factors: 'fc9' matches no tensor"),
        ({"sigma_factors": {"*": -1.0}}, BadValue, "a number of more than 0, not -1.0"),
    ],
)
def test_what_cannot_be_is_said(settings: Any, error: type[Exception], said: str) -> None:
    data = Data(train=blobs(96), validation=blobs(30, seed=1))
    with pytest.raises(error, match=said):
        find_ticket(tiny_model, data, trainer="es", levels=1, **settings)
