"""Schedules after a rewind to generation k are those of k; fine-tuning keeps the last values."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from es.schedules import DECAYS, at_generation
from es.strategies import STRATEGIES, make_strategy
from pruning.jobs import Budget
from tests.es.helpers import Keeper, job, trainer

TOTAL = 10
SETTINGS = {"sigma_decay": 0.9, "sigma_min": 0.02, "lr_decay": 0.8, "lr_min": 1e-3, "temperature_decay": 0.7}
SCHEDULED = [entry.name for entry in STRATEGIES if "sigma_decay" in entry.value.settings]


def settings(name: str) -> dict[str, float]:
    return {key: value for key, value in SETTINGS.items() if key in STRATEGIES[name].value.settings}


@functools.cache
def generations(name: str, start: int, stop: int) -> list[dict[str, float]]:
    """What the schedules of each generation were, in a training where nothing can be learned."""
    sigma, values = at_generation(name, 0.1, settings(name), start, TOTAL)
    strategy, seen = make_strategy(name, 8, 4, sigma, values), []
    with jax.disable_jit():
        state = strategy.init(jax.random.key(0), jnp.zeros(4))
        for _ in range(start, stop):
            found = {"sigma": float(strategy.std(state)[0])}
            if hasattr(state, "temperature"):
                found["temperature"] = float(state.temperature)
            seen.append(found)
            population, state = strategy.ask(jax.random.key(1), state)
            state = strategy.tell(jax.random.key(2), population, jnp.zeros(8), state)
    return seen


@pytest.mark.parametrize("name", SCHEDULED)
@pytest.mark.parametrize("start", [1, 6])
def test_a_rewound_level_goes_on_as_the_dense_training(name: str, start: int) -> None:
    dense, rewound = generations(name, 0, TOTAL)[start:], generations(name, start, TOTAL)
    for one, other in zip(dense, rewound, strict=True):
        assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULED)
def test_fine_tuning_stays_at_the_last_generation(name: str) -> None:
    last = generations(name, 0, TOTAL)[-1]
    assert generations(name, TOTAL, TOTAL + 4) == [pytest.approx(last, rel=1e-5)] * 4


def test_the_learning_rate_is_that_of_the_generation() -> None:
    """The first step of Adam is as long as the learning rate, whatever the loss."""
    for start, rate in ((0, 0.5), (3, 0.5 * 0.8**3), (TOTAL + 5, 0.5 * 0.8 ** (TOTAL - 1))):
        sigma, values = at_generation("open-es", 0.1, {"lr": 0.5, "lr_decay": 0.8}, start, TOTAL)
        strategy = make_strategy("open-es", 8, 4, sigma, values)
        population, state = strategy.ask(jax.random.key(1), strategy.init(jax.random.key(0), jnp.zeros(4)))
        told = strategy.tell(jax.random.key(2), population, population[:, 0], state)
        np.testing.assert_allclose(np.abs(strategy.mean(told)), rate, rtol=1e-3)


def test_every_decay_of_a_strategy_is_known() -> None:
    known = {decay.factor for decay in DECAYS}
    for entry in STRATEGIES:
        found = {key for key in entry.value.settings if key.endswith("_decay")}
        assert found - {"radius_decay"} <= known, entry.name  # radii differ by member, not by generation


def test_what_a_strategy_adapts_starts_afresh() -> None:
    assert at_generation("snes", 0.1, {"lr": 0.5}, 7, TOTAL) == (0.1, {"lr": 0.5})


def test_a_decay_does_not_end_at_nothing() -> None:
    sigma, values = at_generation("ars", 0.1, {"sigma_decay": 0.1, "lr_decay": 0.1}, 10_000, 20_000)
    make_strategy("ars", 8, 4, sigma, values)


def first_sigma(budget: Budget, **config: Any) -> float:
    """The standard deviation in the first generation of a level, from its first checkpoint."""
    watch = Keeper(stop_at=1)
    slow = {"strategy": "hill-climbing", "strategy_params": {"sigma_decay": 0.5}, "generations": 8}
    with pytest.raises(KeyboardInterrupt):
        list(trainer(watch, checkpoint_seconds=0, **slow, **config).train([job(budget=budget)], frozenset()))
    return float(watch.kept[0][1]["state/.strategy.std"][0])


@pytest.mark.parametrize(("budget", "after_one"), [(Budget(0, 8), 1), (Budget(3, 8), 4), (Budget(8, 16), 7)])
def test_the_trainer_hands_the_rewind_point_on(budget: Budget, after_one: int) -> None:
    assert first_sigma(budget) == pytest.approx(0.1 * 0.5**after_one)
