"""Strategies as JAX people hold them: an algorithm of evosax as a class, an instance, or a function that makes one."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax.algorithms import CMA_ES, Open_ES, SimpleES, SimpleGA

from es.config import ESConfig
from es.strategies import make_strategy
from es.strategies._given import strategy_behaviour
from lottery import find_ticket
from pruning.errors import BadValue, UnknownName

PARAMS: Any = {"w": np.zeros((3, 4), np.float32)}
TINY: dict[str, Any] = {"trainer": "es", "generations": 2, "levels": 1, "tolerance": 1.0, "quiet": True}


def sphere(params: Any) -> Any:
    return -((params["w"] - 1) ** 2).mean()


def simple(population: int, solution: Any) -> SimpleES:
    return SimpleES(population, solution, optimizer=optax.sgd(0.5))


def open_es(population: int, solution: Any) -> Open_ES:
    return Open_ES(population, solution, std_schedule=lambda step: 0.1)


@pytest.mark.parametrize("given", [SimpleES, simple, SimpleES(8, PARAMS), CMA_ES, open_es])
def test_it_asks_tells_and_searches_around_one_mean(given: Any):
    config = ESConfig(strategy=given, population=8)
    strategy = make_strategy(config.strategy, 8, 12, 0.1)
    state = strategy.init(jax.random.key(0), jnp.zeros(12))
    members, state = jax.jit(strategy.ask)(jax.random.key(1), state)
    assert members.shape == (8, 12)
    assert 0 < float(jnp.abs(members).max()) < 1, "sigma is the first standard deviation"
    state = jax.jit(strategy.tell)(jax.random.key(2), members, jnp.arange(8.0), state)
    assert strategy.mean(state).shape == (12,) and jnp.isfinite(strategy.mean(state)).all()


def test_an_instance_is_made_again_with_what_it_was_made_with_for_every_level(tmp_path):
    instance = SimpleES(16, PARAMS, optimizer=optax.sgd(0.5))
    ticket = find_ticket(PARAMS, sphere, strategy=instance, out=tmp_path, **TINY)
    assert ticket.search is not None
    assert ticket.search.config["population"] == 16 and ticket.search.config["strategy"] == "given: SimpleES"
    text = (ticket.search.run / "config.json").read_text()
    assert json.loads(text)["strategy"] == "given: SimpleES"
    functions = [make_strategy(ESConfig(strategy=s).strategy, 16, 5, 0.1) for s in (instance, simple)]
    assert strategy_behaviour(functions[0], 16, 5) == strategy_behaviour(functions[1], 16, 5)


def test_two_optimizers_are_two_experiments(tmp_path):
    runs = []
    for rate in (0.5, 0.1):
        instance = SimpleES(8, PARAMS, optimizer=optax.sgd(rate))
        found = find_ticket(PARAMS, sphere, strategy=instance, out=tmp_path, **TINY).search
        assert found is not None
        runs.append(found.run)
    assert runs[0] != runs[1]


def test_what_does_not_fit_is_one_line(tmp_path):
    def refused(strategy: Any, **settings: Any) -> None:
        find_ticket(PARAMS, sphere, strategy=strategy, out=tmp_path, **{**TINY, **settings})

    with pytest.raises(BadValue, match="this SimpleES was made for 10 weights, and 12 are evolved here: make it with"):
        refused(SimpleES(8, jnp.zeros(10)))
    with pytest.raises(BadValue, match="this SimpleES has a population of 8, and population is 32"):
        refused(SimpleES(8, PARAMS), population=32)
    with pytest.raises(BadValue, match="searches around a mean, and SimpleGA has no get_mean"):
        refused(SimpleGA)
    with pytest.raises(BadValue, match="and int has no init"):
        refused(lambda population, solution: 3)
    with pytest.raises(BadValue, match="strategy 'nothing' for a population of 4 .* fails: TypeError"):
        refused(nothing)
    with pytest.raises(BadValue, match="does not say the standard deviation of each weight; use criterion magnitude"):
        refused(SimpleES, criterion="snr")
    with pytest.raises(BadValue, match="'SimpleES' is an object, whose schedules begin anew with it: rewind to 0"):
        refused(SimpleES, rewind="1")
    with pytest.raises(UnknownName, match="unknown SimpleES hyper-parameter 'c_sdt'"):
        refused(SimpleES, strategy_params={"c_sdt": 0.1})
    with pytest.raises(BadValue, match="strategy must be a name or a function or an object with ask and tell"):
        refused(3.5)


def nothing() -> None:
    """Take no population."""
