"""The evolution trainer: what evolution does to weights, masks, buffers, histories; and that it can be interrupted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import es.trainer
from es.coordinates import pack, positions
from es.objectives import cross_entropy
from es.strategies import STRATEGIES, make_strategy
from pruning.errors import BadValue, FileFormatError
from pruning.jobs import Budget
from tests.es.helpers import EVOLVED, STEPS, Keeper, initial, job, task, trainer
from tests.lottery.helpers import assert_same_arrays, removed

NEEDS = frozenset({"std"})


def train(one, *jobs, needs=NEEDS) -> list[Any]:
    return list(one.train(list(jobs), needs))


@pytest.fixture(params=[1, 3], ids=["single", "stacked"])
def jobs(request):
    return [job(seed, 20) for seed in range(request.param)]


class TestMasks:
    @pytest.mark.parametrize("decay", [0.0, 0.1])
    def test_removed_weights_are_zero_after_any_number_of_generations(self, jobs, decay):
        for trained in train(trainer(mean_decay=decay), *jobs):
            assert not removed(jobs[0].mask, trained.params).any()
            assert trained.std is not None
            assert not removed(jobs[0].mask, trained.std).any()

    def test_only_the_survivors_are_searched(self):
        watch = Keeper()
        train(trainer(watch, checkpoint_seconds=0), job(kept=20))
        dims = 20 + 8  # the biases are never pruned
        _, arrays, _ = watch.kept[-1]
        widths = {a.shape[-1] for n, a in arrays.items() if n.startswith("state/.strategy") and a.ndim > 1}
        assert widths == {dims}

    def test_survivors_start_at_the_rewind_weights(self):
        first = job(kept=20, budget=Budget(0, STEPS, (0,)))
        (trained,) = train(trainer(), first)
        assert_same_arrays(dict(trained.snapshots[0]), first.mask.apply(first.params))

    def test_a_level_starts_with_a_fresh_state_at_its_own_weights(self):
        space = task().space
        strategy = make_strategy("snes", 16, 28, 0.1)
        start = job(kept=20)
        where = positions(space, start.mask)
        vector = pack(space, where, start.params)
        state = strategy.init(jnp.zeros(2, jnp.uint32), jnp.asarray(vector))
        assert np.array_equal(strategy.mean(state), vector)
        assert np.array_equal(strategy.std(state), np.full(28, 0.1, np.float32))


class TestResults:
    def test_evolution_learns(self):
        before, after = (train(trainer(generations=n), job(budget=Budget(0, n)))[0] for n in (1, 150))
        assert after.history[-1].validation > 0.9
        assert after.history[-1].validation_loss < before.history[-1].validation_loss

    def test_the_history_has_the_asked_for_steps_and_measures_the_mean(self):
        (trained,) = train(trainer(eval_every=5), job(kept=20))
        assert [point.step for point in trained.history] == [5, 10, 12]
        measured = task().measure({name: jnp.asarray(value) for name, value in trained.params.items()})
        assert vars(measured).items() <= vars(trained.history[-1]).items()
        assert all(point.train_loss > 0 for point in trained.history)

    def test_the_best_mean_is_the_one_with_the_smallest_validation_loss(self):
        (trained,) = train(trainer(sigma=1.0, eval_every=1), job(kept=20))
        best = min(trained.history, key=lambda point: point.validation_loss)
        assert best.step < STEPS  # so that the best and the final mean differ
        measured = task().measure({name: jnp.asarray(value) for name, value in trained.best.items()})
        assert measured.validation_loss == best.validation_loss

    def test_std_is_that_of_the_search_distribution(self):
        watch = Keeper()
        (trained,) = train(trainer(watch), job(kept=20))
        _, arrays, _ = watch.kept[-1]
        (name,) = [n for n in arrays if n.startswith("state/.strategy") and n.endswith(".std")]
        where = positions(task().space, job(kept=20).mask)
        assert set(trained.std) == {"in.weight", "out.weight"}
        full = {n: trained.std.get(n, np.zeros(initial()[n].shape, np.float32)) for n in EVOLVED}
        weights = np.flatnonzero(pack(task().space, where, full))
        assert len(weights) == 20
        assert np.array_equal(pack(task().space, where, full)[weights], arrays[name][0][weights])

    def test_std_comes_only_when_it_is_asked_for(self):
        assert train(trainer(), job(), needs=frozenset())[0].std is None

    def test_what_is_not_evolved_comes_back_bit_by_bit(self):
        """Regression: float64 and large integers do not survive a trip through 32 bits."""
        start = job()
        params = {**start.params, "scale": np.asarray(1 / 3)}
        (trained,) = train(trainer(), replace(start, params=params))
        for name in ("scale", "seen"):
            assert trained.params[name].dtype == params[name].dtype
            assert trained.params[name] == params[name]

    def test_snapshots_and_a_start_in_the_middle(self):
        (trained,) = train(trainer(), job(budget=Budget(0, STEPS, (5,))))
        assert list(trained.snapshots) == [5]
        assert not np.array_equal(trained.snapshots[5]["in.weight"], trained.params["in.weight"])
        (later,) = train(trainer(), job(budget=Budget(5, STEPS)))
        assert [point.step for point in later.history] == [8, 12]

    def test_mean_decay_pulls_the_mean_to_zero(self):
        flat = task(loss=lambda outputs, targets: 0.0 * outputs.sum())
        still, decayed = (train(trainer(given=flat, mean_decay=d, sigma=1e-6), job())[0] for d in (0.0, 0.5))
        ratio = np.abs(decayed.params["in.weight"]) / np.abs(still.params["in.weight"])
        assert np.allclose(ratio, 0.5**STEPS, rtol=0.2)

    def test_members_see_the_same_minibatch_and_generations_another(self):
        one = task(batch_size=4)
        keys = [jnp.asarray([0, n], jnp.uint32) for n in range(3)]
        twice = [one._minibatch(one.data, key)[0] for key in (keys[0], keys[0], keys[1])]
        assert np.array_equal(twice[0], twice[1])
        assert not np.array_equal(twice[0], twice[2])
        where = positions(one.space, job().mask)
        vector = jnp.asarray(pack(one.space, where, initial()))
        losses, _ = one.losses(one.data, where, jnp.stack([vector] * 3), {"scale": jnp.float32(1)}, keys[0])
        assert len(set(np.asarray(losses).tolist())) == 1


class TestBits:
    def test_the_same_jobs_give_the_same_bits(self, jobs):
        for one, other in zip(train(trainer(), *jobs), train(trainer(), *jobs), strict=True):
            assert_same_arrays(one.params, other.params)
            assert one.history == other.history

    def test_how_many_generations_run_at_a_time_changes_nothing(self, jobs, monkeypatch):
        usual = train(trainer(), *jobs)
        monkeypatch.setattr(es.trainer, "UPDATE_SECONDS", 0.0)  # one by one
        for one, other in zip(usual, train(trainer(), *jobs), strict=True):
            assert_same_arrays(one.params, other.params)

    @pytest.mark.parametrize("stop_at", [1, 2, 5])
    def test_an_interrupted_evolution_goes_on_bit_by_bit(self, jobs, stop_at, monkeypatch):
        monkeypatch.setattr(es.trainer, "UPDATE_SECONDS", 0.0)
        jobs = [replace(one, budget=Budget(0, STEPS, (3,))) for one in jobs]
        usual = train(trainer(), *jobs)
        watch = Keeper(stop_at=stop_at)
        with pytest.raises(KeyboardInterrupt):
            train(trainer(watch, checkpoint_seconds=0), *jobs)
        reached = watch.steps[-1][1]
        assert reached < STEPS
        watch = Keeper(kept=watch.kept[-1:])
        resumed = train(trainer(watch), *jobs)
        assert watch.steps[0] == (jobs[0].seed, reached)  # it did not start over
        for one, other in zip(usual, resumed, strict=True):
            assert_same_arrays(one.params, other.params)
            assert_same_arrays(one.std, other.std)
            assert_same_arrays(one.best, other.best)
            assert one.history == other.history
            assert_same_arrays(one.snapshots[3], other.snapshots[3])

    def test_a_checkpoint_of_something_else_is_an_error(self):
        watch = Keeper()
        train(trainer(watch), job(kept=20))
        with pytest.raises(FileFormatError, match="of another strategy or version: delete"):
            train(trainer(watch, strategy="pgpe"), job(kept=20))

    def test_one_after_the_other_under_one_mask_they_share_a_program(self, monkeypatch):
        monkeypatch.setattr(es.trainer, "STACKED_FLOPS", {"cpu": 0.0, "gpu": 0.0})
        made, single = [], es.trainer.advance_single
        monkeypatch.setattr(es.trainer, "advance_single", lambda *given: made.append(given) or single(*given))
        same = [replace(job(seed, 20), budget=Budget(0, 2), mask=job(0, 20).mask) for seed in range(3)]
        alone = [train(trainer(generations=2), one)[0] for one in same]
        assert len(made) == 3
        for one, together in zip(alone, train(trainer(generations=2), *same), strict=True):
            assert_same_arrays(dict(one.params), dict(together.params))
        assert len(made) == 4
        train(
            trainer(generations=2), replace(job(0, 20), budget=Budget(0, 2)), replace(job(1, 19), budget=Budget(0, 2))
        )
        assert len(made) == 6

    def test_stacked_and_single_evolution_agree(self):
        jobs = [job(seed, 20) for seed in range(3)]
        stacked = train(trainer(generations=3), *[replace(one, budget=Budget(0, 3)) for one in jobs])
        for one, together in zip(jobs, stacked, strict=True):
            (alone,) = train(trainer(generations=3), replace(one, budget=Budget(0, 3)))
            assert np.allclose(alone.params["in.weight"], together.params["in.weight"], atol=1e-5)


def nan_where_positive(outputs, targets):
    loss = cross_entropy(outputs, targets)
    return jnp.where(outputs[0, 0] > 0, jnp.nan, loss)


class TestFailures:
    def test_a_member_without_a_finite_loss_is_the_worst(self):
        (trained,) = train(trainer(given=task(loss=nan_where_positive), population=32, sigma=0.5), job())
        assert trained.diverged is None or "mean" in trained.diverged
        assert np.isfinite(trained.params["in.weight"]).all()

    def test_a_population_without_a_finite_loss_ends_its_replicate_and_no_other(self):
        good, bad = job(0), job(1)
        bad = replace(bad, params={**bad.params, "scale": np.asarray(np.nan)})
        first, second, third = train(trainer(), good, bad, job(2))
        assert first.diverged is None and third.diverged is None
        assert second.diverged == "no member of the population had a finite loss in generation 1"
        assert np.isfinite(second.params["in.weight"]).all()

    def test_when_all_have_failed_nothing_more_is_run(self):
        watch = Keeper()
        broken = job(1)
        broken = replace(broken, params={**broken.params, "scale": np.asarray(np.inf)})
        (trained,) = train(trainer(watch, given=task(loss=lambda o, t: o.sum() * jnp.nan)), broken)
        assert trained.diverged and watch.steps[-1][1] < STEPS

    def test_a_scalar_strategy_gives_no_std(self):
        one = trainer(strategy="open-es")
        assert one.provides == {"best"}
        with pytest.raises(BadValue, match="does not provide std"):
            train(one, job())


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_trains(name):
    (trained,) = train(trainer(strategy=name, generations=3), job(kept=20, budget=Budget(0, 3)), needs=frozenset())
    assert trained.diverged is None
    assert not removed(job(kept=20).mask, trained.params).any()
    assert not np.array_equal(trained.params["in.weight"], job(kept=20).mask.apply(initial())["in.weight"])
