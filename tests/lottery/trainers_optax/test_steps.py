"""What one step is: computed by hand, equal to trainer `gd`, and never touching a removed weight."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

from lottery import Data
from lottery.data.batches import training_batches
from lottery.data.parts import prepare
from lottery.trainers.optax.trainer import OptaxTrainer
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from tests.lottery.helpers import assert_same_arrays, blobs, removed, shown
from tests.lottery.trainers_optax.helpers import DATA, forward, job_of, line, perceptron, ready, trained

# Two examples, both in every batch: y = 2 for x = (1, 0), y = 0 for x = (0, 1).
TWO = Data(train=(np.eye(2, dtype="f4"), np.array([2.0, 0.0], "f4")), validation=(np.eye(2, dtype="f4"), np.ones(2)))
START = {"w": np.array([1.0, 1.0], "f4")}


def two(steps: int, mask: Any = (True, True), **settings: Any) -> np.ndarray[Any, Any]:
    """Return the weights after some steps of SGD on the two examples."""
    setup = ready((START, line), TWO, optimizer="sgd", steps=steps, **{"batch_size": 2, "lr": 0.1, **settings})
    return trained(setup, Job(START, Mask({"w": np.array(mask)}), 0, Budget(0, steps)))[0].params["w"]


class TestByHand:
    """The loss is ((w₀ − 2)² + (w₁ − 0)²) / 2 at first: its gradient at (1, 1) is (−1, 1)."""

    def test_sgd(self):
        np.testing.assert_allclose(two(1), [1.1, 0.9], rtol=1e-6)

    def test_the_gradient_is_taken_anew_at_every_step(self):
        np.testing.assert_allclose(two(2), [1.19, 0.81], rtol=1e-6)

    def test_momentum(self):
        # velocities: (−1, 1), then 0.5 (−1, 1) + (−0.9, 0.9) = (−1.4, 1.4)
        np.testing.assert_allclose(two(2, momentum=0.5), [1.24, 0.76], rtol=1e-6)

    def test_nesterov(self):
        # (−1, 1) + 0.5 (−1, 1) = (−1.5, 1.5)
        np.testing.assert_allclose(two(1, momentum=0.5, nesterov=True), [1.15, 0.85], rtol=1e-6)

    def test_an_l2_penalty(self):
        # (−1, 1) + 0.5 (1, 1) = (−0.5, 1.5)
        np.testing.assert_allclose(two(1, weight_decay=0.5), [1.05, 0.85], rtol=1e-6)

    def test_clipping(self):
        np.testing.assert_allclose(two(1, clip_norm=0.5), [1 + 0.05 / 2**0.5, 1 - 0.05 / 2**0.5], rtol=1e-5)

    def test_clipping_counts_survivors_alone(self):
        np.testing.assert_allclose(two(1, mask=(True, False), clip_norm=0.5), [1.05, 0.0], rtol=1e-5)

    def test_a_removed_weight_is_0_from_the_first_step_on(self):
        np.testing.assert_allclose(two(2, mask=(False, True), momentum=0.5), [0.0, 0.76], rtol=1e-6)


def add_some(update: Any) -> Any:
    return update + 0.01


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "muon"},
    {"optimizer": "schedule_free_adamw", "optimizer_params": {"warmup_steps": 2}},
    {"optimizer": lambda schedule: optax.chain(optax.ema(0.9), optax.lion(schedule, weight_decay=0.1))},
    # one that looks at the loss, and one that writes into every weight
    {"optimizer": ("mine", optax.chain(optax.polyak_sgd(), optax.stateless(lambda u, p: jax.tree.map(add_some, u))))},
]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=shown)
def test_a_removed_weight_stays_exactly_0_and_survivors_move(settings):
    job = job_of(perceptron, density=0.5, budget=Budget(0, 6, (0, 3)))
    (result,) = trained(ready(perceptron, steps=6, **settings), job)
    assert result.diverged is None
    for params in (result.params, *result.snapshots.values()):
        assert (removed(job.mask, params) == 0).all()
    # survivors begin bit-equal to the rewind point, and are trained
    assert_same_arrays(result.snapshots[0], job.mask.apply(job.params))
    moved = np.concatenate([(result.params[name] != job.params[name])[keep] for name, keep in job.mask.items()])
    assert moved.mean() > 0.9


def written_where(choose: Any) -> Any:
    """An optimizer that adds to the weights of matrices that are chosen."""

    def updated(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p: u + 0.1 * choose(p) if p.ndim > 1 else u, updates, params)

    return optax.chain(optax.sgd(0.1), optax.stateless(updated))


def test_what_an_optimizer_writes_to_a_removed_weight_is_never_seen_by_the_network():
    """What is delivered is under the mask in any case: survivors tell whether a removed weight was back in between."""
    job = job_of(perceptron, density=0.5, budget=Budget(0, 6))
    everywhere, survivors = (
        trained(ready(perceptron, steps=6, optimizer=("mine", written_where(choose))), job)[0].params
        for choose in (jnp.ones_like, lambda p: p != 0)
    )
    assert_same_arrays(everywhere, survivors)


class Torch(nn.Module):
    """The perceptron in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


SAME: list[dict[str, Any]] = [
    {"optimizer": "sgd", "lr": 0.1},
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "clip_norm": 0.5}
    | {"schedule": "cosine", "warmup": 5},
    {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01, "schedule": "milestones", "milestones": (10, 20)},
]


@pytest.mark.parametrize("settings", SAME, ids=shown)
def test_it_agrees_with_gd_on_the_same_network_and_order_of_data(settings):
    """In float64, over several epochs from step 3 on, under a mask; a JAX pair and the module's translation."""
    with jax.enable_x64(True):
        torch.manual_seed(0)
        module = Torch().double()
        job = job_of(module, density=0.6, budget=Budget(3, 30, (20,)))
        shared = {"steps": 30, "batch_size": 20, "eval_every": 10, **settings}
        (by_gd,) = trained(ready(module, trainer="gd", **shared), job)
        (by_optax,) = trained(ready(module, **shared), job)
        names = {"first.weight": "first.kernel", "second.weight": "second.kernel"}
        there = {names.get(n, n): np.ascontiguousarray(v.T) if v.ndim > 1 else v for n, v in job.params.items()}
        mask = Mask({names[name]: keep.T for name, keep in job.mask.items()})
        tree = {part: {name: there[f"{part}.{name}"] for name in ("kernel", "bias")} for part in ("first", "second")}
        (in_jax,) = trained(ready((tree, forward), **shared), Job(there, mask, job.seed, job.budget))
    for name, weights in by_gd.params.items():
        assert by_optax.params[name].dtype == np.float64
        np.testing.assert_allclose(by_optax.params[name], weights, rtol=0, atol=1e-9)
        np.testing.assert_allclose(in_jax.params[names.get(name, name)].T, weights, rtol=0, atol=1e-9)
        np.testing.assert_allclose(by_optax.snapshots[20][name], by_gd.snapshots[20][name], rtol=0, atol=1e-9)
    for one, other in zip(by_optax.history, by_gd.history, strict=True):
        assert (one.step, one.validation, one.test) == (other.step, other.validation, other.test)
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
        assert one.validation_loss == pytest.approx(other.validation_loss, abs=1e-5)


def test_a_standard_deviation_is_that_of_gd():
    torch.manual_seed(0)
    module, needs = Torch(), frozenset({"std"})
    job = job_of(module, density=0.6)
    pairs = [trained(ready(module, trainer=name, lr=1e-3), job, needs=needs)[0].std for name in ("gd", "optax")]
    assert pairs[0] is not None and pairs[1] is not None
    for name, std in pairs[0].items():
        np.testing.assert_allclose(pairs[1][name], std, rtol=1e-2)
        assert (pairs[1][name][~job.mask[name]] == 0).all()


def test_complex_weights_are_trained_as_by_gd():
    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8, dtype=torch.complex64), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x.to(torch.complex64)).abs())

    torch.manual_seed(0)
    module = Wave()
    job = job_of(module, density=0.6, budget=Budget(0, 8))
    results = [trained(ready(module, trainer=t, steps=8, lr=0.01), job)[0] for t in ("gd", "optax")]
    for name, weights in results[0].params.items():
        np.testing.assert_allclose(results[1].params[name], weights, rtol=0, atol=1e-4)
        assert results[1].params[name].dtype == weights.dtype


def test_a_convolution_on_a_cpu_is_trained_step_by_step():
    def model(seed: int) -> Any:
        params = {"filter": 0.3 * jax.random.normal(jax.random.key(seed), (4, 1, 3)), "out": jnp.ones((4, 3))}
        return params, convolve

    def convolve(params: Any, x: Any) -> Any:
        found = jax.lax.conv_general_dilated(x[:, None], params["filter"], (1,), "SAME")
        return jax.nn.relu(found).mean(-1) @ params["out"]

    setup, job = ready(model, optimizer="sgd", lr=0.1), job_of(model, density=0.6, budget=Budget(0, 4))
    trainers = [each.trainer for each in (setup, ready(perceptron))]
    assert [isinstance(each, OptaxTrainer) and each.by_steps for each in trainers] == [True, False]
    (result,) = trained(setup, job)
    assert (removed(job.mask, result.params) == 0).all()

    # as a plain loop gives it, over the batches of trainer `gd`
    @jax.jit
    def gradients(params: Any, x: Any, y: Any) -> Any:
        return jax.grad(lambda p: optax.softmax_cross_entropy_with_integer_labels(convolve(p, x), y).mean())(params)

    params = dict(job.mask.apply(job.params))
    for x, y in training_batches(prepare(DATA, 0).train, 16, 0, 0, 4):
        found = gradients(params, x.numpy(), y.numpy())
        params = {n: np.where(job.mask[n], w - 0.1 * np.asarray(found[n]), 0) for n, w in params.items()}
    for name, weights in params.items():
        np.testing.assert_allclose(result.params[name], weights, atol=1e-5)


def test_bf16_computes_in_half_and_keeps_whole_weights():
    job = job_of(perceptron, density=0.5)
    whole, half = (trained(ready(perceptron, precision=p), job)[0] for p in ("float32", "bf16"))
    for name, weights in half.params.items():
        assert weights.dtype == np.float32
        assert 0 < np.abs(weights - whole.params[name]).max() < 0.05


def test_a_batch_larger_than_the_data_is_all_of_them():
    few = Data(train=blobs(9), validation=blobs(9, seed=1))
    setup = ready(perceptron, few, batch_size=64)
    assert setup.steps_per_epoch == 1
    assert trained(setup, job_of(perceptron))[0].diverged is None
