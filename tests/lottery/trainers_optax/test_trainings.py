"""A whole training: where it begins and ends, what it gives back, alone and stacked, and after an interruption."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lottery import Data
from lottery.trainers.optax.trainer import OptaxTrainer
from pruning.errors import BadValue
from pruning.jobs import BEST, Budget, Job, Question
from pruning.mask import Mask
from pruning.settings.patience import PATIENCE_ENDED
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, shown
from tests.lottery.trainers_optax.helpers import job_of, line, perceptron, problem_in, ready, trained

# One example whose gradient is always −1: a step of SGD adds the learning rate.
ONE = Data(train=(np.ones((1, 1), "f4"), np.zeros(1, "f4")), validation=(np.ones((1, 1), "f4"), np.zeros(1, "f4")))
WEIGHT = {"w": np.zeros(1, "f4")}


def moved_by(start: int, stop: int, **settings: Any) -> float:
    """Return the sum of the learning rates of the steps from `start` to before `stop` of a training of 8."""
    setup = ready((WEIGHT, line), ONE, loss=lambda o, y: -o.sum(), **{"optimizer": "sgd", "steps": 8, **settings})
    job = Job(WEIGHT, Mask({"w": np.ones(1, bool)}), 0, Budget(start, stop))
    return float(trained(setup, job)[0].params["w"][0])


def halving(step: Any) -> Any:
    return 0.5 ** (step + 1)


def branching(step: int) -> float:
    return 1.0 if step < 3 else 0.25


class TestSchedules:
    @pytest.mark.parametrize(
        ("settings", "rates"),
        [
            ({"lr": 1.0, "schedule": "milestones", "milestones": (2, 4), "gamma": 0.5}, [1, 1, 0.5, 0.5] + [0.25] * 4),
            (
                {"lr": 1.0, "schedule": "cosine", "warmup": 2},
                [0.5, *[(1 + math.cos(math.pi * k / 8)) / 2 for k in range(1, 8)]],
            ),
            ({"lr": 1.0, "schedule": "linear", "schedule_params": {"end_value": 0.0}}, [1 - k / 8 for k in range(8)]),
            ({"schedule": halving}, [0.5 ** (k + 1) for k in range(8)]),
            ({"schedule": branching}, [1.0] * 3 + [0.25] * 5),
            ({"optimizer": ("mine", optax.sgd(halving))}, [0.5 ** (k + 1) for k in range(8)]),
            (
                {"optimizer": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=halving)},
                [0.5 ** (k + 1) for k in range(8)],
            ),
        ],
        ids=shown,
    )
    def test_a_training_from_step_k_has_the_rates_of_step_k(self, settings, rates):
        assert moved_by(0, 8, **settings) == pytest.approx(sum(rates), rel=1e-5)
        assert moved_by(5, 8, **settings) == pytest.approx(sum(rates[5:]), rel=1e-5)
        # fine-tuning goes on at the last rate
        assert moved_by(8, 11, **settings) == pytest.approx(3 * rates[-1], rel=1e-5)

    def test_a_maker_of_an_optimizer_sees_the_rate_whatever_it_counts(self):
        def own(schedule: Any) -> Any:
            def update(updates: Any, state: Any, params: Any = None) -> Any:
                return jax.tree.map(lambda u: -schedule(state["seen"]) * u, updates), {"seen": state["seen"] + 1}

            return optax.GradientTransformation(lambda params: {"seen": jnp.zeros((), jnp.int32)}, update)

        assert moved_by(5, 8, optimizer=own, schedule=halving) == pytest.approx(sum(0.5**k for k in (6, 7, 8)))


def test_a_training_in_two_halves_sees_what_one_in_one_piece_sees():
    setup = ready(perceptron, optimizer="sgd", lr=0.1)
    whole = trained(setup, job_of(perceptron, density=0.5, budget=Budget(0, 12, (0, 5, 12))))[0]
    rest = trained(setup, job_of(perceptron, density=0.5, budget=Budget(5, 12), changed=whole.snapshots[5]))[0]
    assert_same_arrays(whole.params, whole.snapshots[12])
    assert_same_arrays(rest.params, whole.params)
    assert sorted(whole.snapshots) == [0, 5, 12]


def test_the_same_job_gives_the_same_bits_and_another_seed_others():
    setup = ready(perceptron)
    one, two, other = (trained(setup, job_of(perceptron, seed))[0] for seed in (0, 0, 1))
    assert_same_arrays(one.params, two.params)
    assert one.history == two.history
    assert not np.array_equal(one.params["first.kernel"], other.params["first.kernel"])


def test_evaluations_are_where_trainer_gd_has_them_and_the_best_weights_are_kept():
    job = job_of(perceptron)
    result = trained(ready(perceptron, lr=0.3, eval_every=5), job, needs=frozenset({BEST}))[0]
    assert [point.step for point in result.history] == [5, 10, 12]
    best = min(result.history, key=lambda point: point.validation_loss or math.inf)
    assert result.best is not None
    measured = problem_in(ready(perceptron)).task.measure(dict(result.best))
    assert measured.validation_loss == pytest.approx(best.validation_loss, rel=1e-6)


@pytest.mark.parametrize("metric_batch", [2, 64])
def test_a_metric_has_one_value_whatever_the_batch_size(metric_batch):
    setup = ready(perceptron, batch_size=metric_batch)
    params = {name: jnp.asarray(value) for name, value in job_of(perceptron).params.items()}
    measured = problem_in(setup).task.measure(params)
    x, y = blobs(30, seed=1)
    outputs = np.asarray(perceptron(0)[1](perceptron(0)[0], x))
    assert measured.validation == pytest.approx((outputs.argmax(1) == y).mean())


class TestStacked:
    """Replicates of a small network share one program."""

    def jobs(self, count: int) -> list[Job]:
        return [job_of(perceptron, seed, density=0.5, budget=Budget(0, 12, (4,))) for seed in range(count)]

    def test_each_gets_what_it_gets_alone_up_to_rounding(self):
        setup, jobs = ready(perceptron, optimizer="sgd", lr=0.1, momentum=0.9), self.jobs(3)
        assert isinstance(setup.trainer, OptaxTrainer) and setup.trainer.together(jobs, frozenset())
        for job, result in zip(jobs, trained(setup, *jobs), strict=True):
            alone = trained(setup, job)[0]
            for name, weights in alone.params.items():
                np.testing.assert_allclose(result.params[name], weights, atol=1e-5)
                np.testing.assert_allclose(result.snapshots[4][name], alone.snapshots[4][name], atol=1e-5)
            assert [point.step for point in result.history] == [point.step for point in alone.history]

    def test_one_that_is_not_finite_leaves_the_others_bits_alone(self):
        setup = ready(perceptron, lr=0.01, eval_every=4)
        healthy, jobs = trained(setup, *self.jobs(3)), self.jobs(3)
        params = {**jobs[1].params, "second.bias": np.full(3, np.nan, np.float32)}
        sick = trained(setup, jobs[0], Job(params, jobs[1].mask, 1, jobs[1].budget), jobs[2])
        assert sick[1].diverged == "the loss is not finite at step 4"
        assert [point.step for point in sick[1].history] == [4]
        for row in (0, 2):
            assert sick[row].diverged is None and sick[row].history == healthy[row].history
            assert_same_arrays(sick[row].params, healthy[row].params)

    def test_a_learning_rate_beyond_measure_is_a_training_that_failed(self):
        result = trained(ready(perceptron, optimizer="sgd", lr=1e30), job_of(perceptron))[0]
        assert result.diverged is not None and "not finite at step" in result.diverged

    def test_every_level_runs_the_program_of_the_first(self):
        traced = []

        def loss(outputs: Any, targets: Any) -> Any:
            traced.append(outputs.shape)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()

        setup, needs = ready(perceptron, loss=loss), frozenset({"std"})
        trained(setup, job_of(perceptron), needs=needs)
        before = len(traced)
        trained(setup, job_of(perceptron, density=0.3, budget=Budget(3, 12, (7,))), needs=needs)
        assert len(traced) == before


class Kept(Silent):
    """Keeps every checkpoint, and gives back the one that it is told to."""

    def __init__(self, given: Any = None) -> None:
        self.given, self.checkpoints = given, []

    def restore(self, jobs: Any) -> Any:
        return self.given

    def checkpoint(self, jobs: Any, arrays: Any, facts: Any) -> None:
        self.checkpoints.append(({name: np.array(value) for name, value in arrays.items()}, facts))


@pytest.mark.parametrize("settings", [{}, {"patience": 2, "lr": 0.5}], ids=["stacked", "patience"])
def test_from_any_checkpoint_it_goes_on_to_the_same_bits(settings):
    settings = {"steps": 24, "eval_every": 2, "checkpoint_seconds": 0.0, **settings}
    jobs, watch = [job_of(perceptron, s, 0.5, Budget(0, 24, (3,))) for s in (0, 1)], Kept()
    whole = trained(ready(perceptron, watch=watch, **settings), *jobs)
    together = "patience" not in settings
    for kept in (watch.checkpoints[1], watch.checkpoints[-1]):
        among = jobs if together else jobs[:1] if kept is watch.checkpoints[1] else jobs[1:]
        again = trained(ready(perceptron, watch=Kept(kept), **settings), *among)
        for result, job in zip(again, among, strict=True):
            expected = whole[job.seed]
            assert_same_arrays(result.params, expected.params)
            assert result.history == expected.history and result.facts == expected.facts
            assert_same_arrays(result.snapshots[3], expected.snapshots[3])


def test_patience_ends_a_training_and_says_when():
    settings = {"steps": 60, "eval_every": 2, "patience": 2, "lr": 0.5}
    result = trained(ready(perceptron, **settings), job_of(perceptron, budget=Budget(0, 60)))[0]
    losses = [point.validation_loss or 0 for point in result.history]
    assert len(losses) - 1 == int(np.argmin(losses)) + 2
    assert result.facts == {PATIENCE_ENDED: result.history[-1].step}
    later = trained(ready(perceptron, **settings), job_of(perceptron, budget=Budget(0, 60, (57,))))[0]
    assert later.history[-1].step >= 57 and 57 in later.snapshots


def test_what_is_not_trained_stays_as_it_was():
    job = job_of(perceptron, density=0.5)
    result = trained(ready(perceptron, train_only=("second.*",), weight_decay=0.1), job)[0]
    start = job.mask.apply(job.params)
    assert np.array_equal(result.params["first.kernel"], start["first.kernel"])
    assert not np.array_equal(result.params["second.kernel"], start["second.kernel"])


def test_what_it_cannot_give_is_one_line():
    setup = ready(perceptron)
    with pytest.raises(BadValue, match="the optax trainer does not provide gradients"):
        trained(setup, job_of(perceptron), needs=frozenset({"gradients"}))
    question = Question(lambda so_far: None, lambda looks: True)
    with pytest.raises(BadValue, match="does not end a training early: its budgets have no `until`"):
        trained(setup, job_of(perceptron, budget=Budget(0, 12, until=question)))
