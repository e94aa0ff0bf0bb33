"""Learning rates tensor by tensor: as a user names them, and by a rule under each level's mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lottery import find_ticket
from lottery.data import Data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import torch_source
from lottery.trainers import Ask, Setup
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.trainer import GDTrainer
from pruning.disk.files import read_json
from pruning.errors import BadValue, UnknownName
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
FIRST, LAST, NOTHING = "0.weight", "4.weight", frozenset[str]()
STEP, WHOLE = Budget(0, 1), Budget(0, 12)


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def ready(trainer: str = "gd", **settings: Any) -> Setup:
    parts = prepare(DATA, 0)
    given = {"steps": 12, "batch_size": 16, "lr": 0.1, **settings}
    source = torch_source(mlp, parts, "model")
    if trainer == "gd":
        return setup(Ask(source, parts, GDConfig(**given), None, None, Silent(), 0))
    from lottery.trainers.optax.config import OptaxConfig
    from lottery.trainers.optax.setup import setup as setup_in_jax

    return setup_in_jax(Ask(source, parts, OptaxConfig(**given), None, None, Silent(), 0))


def job(budget: Budget = WHOLE, seed: int = 0, density: float = 1.0) -> Job:
    weights = {name: tensor.detach().numpy().copy() for name, tensor in mlp(seed).named_parameters()}
    rng = np.random.default_rng(7)
    keep = {name: rng.random(array.shape) < density for name, array in weights.items() if array.ndim > 1}
    return Job(weights, Mask(keep), seed, budget)


def trained(made: Setup, *jobs: Job) -> list[Trained]:
    return list(made.trainer.train(list(jobs), NOTHING))


def moved(trainer: str, **settings: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return by how much one step moves every tensor."""
    start = job(STEP)
    (after,) = trained(ready(trainer, **settings), start)
    return {name: after.params[name] - start.params[name] for name in start.params}


@pytest.mark.parametrize("trainer", ["gd", "optax"])
@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd"}, {"optimizer": "adam"}, {"optimizer": "adamw", "weight_decay": 0.1}]
)
def test_a_factor_scales_the_steps_of_its_tensor_and_of_no_other(trainer: str, settings: dict[str, Any]) -> None:
    plain, scaled = moved(trainer, **settings), moved(trainer, **settings, lr_factors={"2.*": 0.25, "2.bias": 3.0})
    for name, step in plain.items():
        factor = {"2.weight": 0.25, "2.bias": 3.0}.get(name, 1.0)  # an exact name beats a pattern
        np.testing.assert_allclose(scaled[name], factor * step, rtol=1e-4, atol=2e-7)


@pytest.mark.parametrize("optimizer", ["rmsprop", "nadam", torch.optim.Adagrad])
def test_any_optimizer_of_pytorch_takes_factors(optimizer: Any) -> None:
    plain, scaled = moved("gd", optimizer=optimizer), moved("gd", optimizer=optimizer, lr_factors={FIRST: 0.5})
    np.testing.assert_allclose(scaled[FIRST], 0.5 * plain[FIRST], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(scaled[LAST], plain[LAST])


@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule": "cosine", "warmup": 3},
        {"schedule": "milestones", "milestones": (4, 8)},
        {"schedule": "StepLR", "schedule_params": {"step_size": 3}},
        {"schedule": "OneCycleLR"},
    ],
)
def test_schedules_multiply_each_tensors_own_rate(schedule: dict[str, Any]) -> None:
    """Twice the rate and a factor of 1/2 for all is the same training, whatever the schedule."""
    (plain,) = trained(ready(optimizer="sgd", **schedule), job())
    (halved,) = trained(ready(optimizer="sgd", **{**schedule, "lr": 0.2, "lr_factors": {"*": 0.5}}), job())
    assert_same_arrays(plain.params, halved.params)


def test_both_trainers_take_the_same_steps() -> None:
    settings = {"optimizer": "sgd", "momentum": 0.9, "lr_factors": {"2.*": 0.1, LAST: 2.0}}
    (in_torch,), (in_jax,) = (trained(ready(trainer, **settings), job(density=0.5)) for trainer in ("gd", "optax"))
    for name, weights in in_torch.params.items():
        np.testing.assert_allclose(in_jax.params[name], weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("trainer", ["gd", "optax"])
def test_stacked_and_alone_a_job_has_the_same_factors(trainer: str) -> None:
    by_pytorch = {"steps_by": "pytorch"} if trainer == "gd" else {}
    made = ready(trainer, lr_factors={LAST: 0.25}, **by_pytorch)
    jobs = [job(seed=seed, density=0.5) for seed in range(6)]
    assert made.trainer.together(jobs, NOTHING)  # pyright: ignore[reportAttributeAccessIssue]
    for one, alone in zip(jobs, trained(made, *jobs), strict=True):
        (expected,) = trained(made, one)
        for name, weights in expected.params.items():
            np.testing.assert_allclose(alone.params[name], weights, rtol=1e-3, atol=1e-5)
        assert alone.facts["lr_factors"] == expected.facts["lr_factors"] == {LAST: 0.25}


@pytest.mark.parametrize("trainer", ["gd", "optax"])
def test_a_rule_follows_the_mask_of_every_job(trainer: str) -> None:
    made = ready(trainer, lr_rule="smupar", lr_rule_params={"base_width": 4}, lr_factors={"2.weight": 10.0})
    jobs = [job(density=1.0), job(density=0.5), job(density=0.25)]
    for one, found in zip(jobs, trained(made, *jobs), strict=True):
        density = {name: keep.mean() for name, keep in one.mask.items()}
        expected = {FIRST: 1 / density[FIRST], "2.weight": 10 / (2 * density["2.weight"]), LAST: 0.5 / density[LAST]}
        assert found.facts["lr_factors"] == pytest.approx({**expected, "0.bias": 1, "2.bias": 1, "4.bias": 1})


def test_a_rule_moves_weights_by_its_factors() -> None:
    settings = {"optimizer": "sgd", "lr_rule": "mup", "lr_rule_params": {"base_width": 2}}
    plain, ruled = moved("gd", optimizer="sgd"), moved("gd", **settings)
    for name, factor in {FIRST: 4, "0.bias": 4, "2.weight": 1, "2.bias": 4, LAST: 1 / 4, "4.bias": 1}.items():
        np.testing.assert_allclose(ruled[name], factor * plain[name], rtol=1e-4, atol=2e-7)


def test_a_search_records_the_factors_of_every_level(tmp_path: Path) -> None:
    rule: Any = {"lr_rule": "smupar", "lr_rule_params": {"base_width": 8}}
    find_ticket(mlp, DATA, levels=1, prune_rate=0.5, steps=20, tolerance=1.0, out=tmp_path, **rule)
    records = [read_json(path) for path in sorted(tmp_path.rglob("level-*/config.json"))]
    dense, sparse = (record["lr_factors"]["2.weight"] for record in records)
    assert dense == 1 and 1.5 < sparse < 3  # about half of its weights are left


def test_a_rule_is_trained_alone() -> None:
    made = ready(lr_rule="smupar", lr_rule_params={"base_width": 8})
    assert isinstance(made.trainer, GDTrainer)
    assert not made.trainer.together([job(seed=seed) for seed in range(6)], NOTHING)


@pytest.mark.parametrize("trainer", ["gd", "optax"])
@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"lr_factors": {"fc*": 0.5}}, UnknownName, "lr_factors: 'fc\\*' matches no tensor"),
        ({"lr_factors": {FIRST: 0}}, BadValue, "a number of more than 0, not 0 for '0.weight'"),
        ({"lr_rule": "mup"}, BadValue, "mup needs base_width"),
        ({"lr_rule": "mup", "lr_rule_params": {"base_width": 3}}, BadValue, "does not divide the 8 inputs"),
        ({"lr_rule": "mup", "lr_rule_params": {"width": 8, "bas": 3}}, UnknownName, "setting of mup 'bas'"),
        ({"lr_rule": "mu"}, UnknownName, "did you mean 'mup'"),
        ({"lr_rule_params": {"base_width": 3}}, BadValue, "give one of mup, smupar, dag"),
        (
            {"lr_rule": "mup", "lr_rule_params": {"base_width": 4}, "optimizer": "rmsprop"},
            BadValue,
            "not for 'rmsprop'",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    trainer: str, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ready(trainer, **settings)


def test_optimizers_that_move_all_weights_together_take_no_factors() -> None:
    with pytest.raises(BadValue, match="lr_factors is what the optimizer's function says itself"):
        ready(optimizer=lambda params: torch.optim.SGD(params, lr=0.1), lr_factors={FIRST: 0.5}, lr=2e-3)
    with pytest.raises(BadValue, match="refuses this model"):
        ready(optimizer="lbfgs", lr_factors={FIRST: 0.5})
    with pytest.raises(BadValue, match="moves all weights together"):
        ready("optax", optimizer="schedule_free_sgd", lr_factors={FIRST: 0.5})
