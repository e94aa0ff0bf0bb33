"""Generations of evolution: stacked ones are those of each network by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from es.coordinates import pack, positions
from es.evolution import Evolution, Rules, advance_single, advance_stacked, begin
from es.strategies import make_strategy
from tests.es.helpers import EVOLVED, job, task


def test_evolutions_that_are_stacked_go_as_each_does_alone():
    judged, jobs = task(), [job(seed, kept=20) for seed in (1, 2)]
    where = np.stack([positions(judged.space, each.mask) for each in jobs])
    rules = Rules(make_strategy("snes", 8, where.shape[1], 0.1), judged, 0.1, (jax.devices("cpu")[0],))

    def start(rows: list[int]) -> Evolution:
        fresh = []
        for row in rows:
            fixed = {name: jnp.asarray(array) for name, array in jobs[row].params.items() if name not in EVOLVED}
            mean = jnp.asarray(pack(judged.space, where[row], jobs[row].params))
            fresh.append(begin(rules.strategy, mean, fixed, jobs[row].seed, 0))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *fresh)

    together, sample = advance_stacked(rules, where)(start([0, 1]), judged.data, 3)
    assert together.generation.tolist() == [3, 3] and sample.members.shape == (2, 2, where.shape[1])
    for row in (0, 1):
        alone, _ = advance_single(rules, where[row : row + 1])(start([row]), judged.data, 3)
        found, wanted = (rules.strategy.mean(state.strategy) for state in (together, alone))
        np.testing.assert_allclose(found[row], wanted[0], rtol=1e-4, atol=1e-6)
        assert not np.allclose(wanted[0], pack(judged.space, where[row], jobs[row].params))
