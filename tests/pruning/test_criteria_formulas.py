"""Criteria against numbers worked out by hand: what is kept, what goes first, and on which weights."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pruning.criteria import get_criterion
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.selection import select

FINAL = np.array([-3.0, 1.0, 0.5, -2.0])
INITIAL = np.array([1.0, -2.0, 0.5, -2.5])


def score(name: str, final: Any = FINAL, initial: Any = INITIAL, keep: Any = None, **evidence: Any) -> Any:
    mask = Mask({"w": np.ones(len(final)) if keep is None else np.array(keep)})
    seen = {need: {"w": np.array(values)} for need, values in evidence.items()}
    trained = Trained({"w": np.array(final)}, history=[], evidence=seen)
    return get_criterion(name).score(trained, Job({"w": np.array(initial)}, mask, 0, Budget(0, 1)))["w"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", [3.0, 1.0, 0.5, 2.0]),
        ("small-final", [-3.0, -1.0, -0.5, -2.0]),
        ("magnitude-initial", [1.0, 2.0, 0.5, 2.5]),
        ("small-init", [-1.0, -2.0, -0.5, -2.5]),
        ("magnitude-increase", [2.0, -1.0, 0.0, -0.5]),
        ("movement", [4.0, 3.0, 0.0, 0.5]),
        # |w₀| sums to 6 and |w| to 6.5.
        ("large-init-large-final", [1.0, 12 / 13, 6 / 13, 24 / 13]),
        ("small-init-small-final", [-36 / 13, -2.0, -0.5, -2.5]),
    ],
)
def test_initial_and_final_weights(name, expected):
    assert np.allclose(score(name), expected, rtol=1e-12)


class TestLargeInitLargeFinal:
    def test_does_not_depend_on_the_scale_of_training(self):
        both = score("large-init-large-final", final=1000 * FINAL)
        assert np.allclose(both, score("large-init-large-final"))

    def test_only_survivors_say_what_the_scale_is(self):
        keep = [True, True, True, False]
        wild = score("large-init-large-final", final=[-3.0, 1.0, 0.5, 1e6], keep=keep)
        assert np.allclose(wild[:3], np.minimum(3.5 / 4.5 * np.abs(FINAL[:3]), np.abs(INITIAL[:3])))

    @pytest.mark.parametrize("name", ["large-init-large-final", "small-init-small-final"])
    @pytest.mark.parametrize("zero", ["final", "initial", "keep"])
    def test_is_finite_where_there_is_no_scale(self, name, zero):
        values = {zero: np.zeros(4, bool if zero == "keep" else float)}
        assert np.isfinite(score(name, **values)).all()


def test_sensitivities_by_hand():
    w, g, h = [2.0, -1.0, 3.0, 0.0], [1.0, 4.0, -2.0, 9.0], [1.0, -2.0, 4.0, 8.0]
    assert score("snip", w, gradients=g).tolist() == [2.0, 4.0, 6.0, 0.0]
    assert score("gradient-norm", w, gradients=g).tolist() == [1.0, 4.0, 2.0, 9.0]
    assert score("taylor", w, gradients=g).tolist() == [4.0, 16.0, 36.0, 0.0]
    # −g·w + ½h·w²: 0, 3, 24, 0.
    assert score("taylor-second", w, gradients=g, hessian_diagonal=h).tolist() == [0.0, 9.0, 576.0, 0.0]
    assert score("fisher", w, fisher=[1.0, 2.0, 4.0, 8.0]).tolist() == [2.0, 1.0, 18.0, 0.0]
    assert score("wanda", w, input_norms=[1.0, 5.0, 0.0, 2.0]).tolist() == [2.0, 5.0, 0.0, 0.0]
    assert score("synflow", w, synflow=[1.0, 5.0, 0.5, 2.0]).tolist() == [2.0, 5.0, 1.5, 0.0]


def test_taylor_second_is_exact_for_a_quadratic_loss_in_separate_weights():
    w, target, h = np.array([2.0, -1.0, 3.0]), np.array([1.0, 1.0, 2.5]), np.array([1.0, 2.0, 0.5])

    def loss(w):
        return float((0.5 * h * (w - target) ** 2).sum())

    changes = [loss(np.where(np.arange(3) == i, 0.0, w)) - loss(w) for i in range(3)]
    found = score("taylor-second", w, w, gradients=h * (w - target), hessian_diagonal=h)
    assert np.allclose(np.sqrt(found), np.abs(changes))


def test_grasp_does_not_keep_what_it_should_remove():
    # es-lottery kept the weights with the largest −w·(Hg): exactly those that the paper removes.
    w, hg = np.array([1.0, -2.0, 3.0, -1.0, 0.5, 2.0]), np.array([-4.0, 1.0, 1.0, -3.0, -1.0, 0.0])
    flow_gained = -w * hg
    kept = select({"w": score("grasp", w, w, hessian_gradients=hg)}, Mask({"w": np.ones(6)}), 3)["w"]
    removed_by_the_paper = np.argsort(flow_gained)[::-1][:3]
    assert sorted(np.flatnonzero(~kept)) == sorted(removed_by_the_paper) == [0, 1, 4]


EXACT = ("grasp", "synflow", "fisher", "wanda", "taylor", "taylor-second", "movement", "magnitude-increase")
SIZES = ("magnitude-initial", "small-final", "small-init", "large-init-large-final", "small-init-small-final")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16], ids=["half", "single", "bfloat16"])
def test_every_precision_gives_finite_real_scores(dtype):
    rng = np.random.Generator(np.random.PCG64(0))
    mask = Mask({"w": rng.random((6, 5)) < 0.8})
    for name in (*EXACT, *SIZES, "gradient-norm"):
        found = get_criterion(name)
        evidence = {n: {"w": rng.random((6, 5)).astype(dtype) * dtype(200)} for n in sorted(found.needs)}
        params = {"w": (rng.standard_normal((6, 5)) * 100).astype(dtype)}
        trained = Trained(mask.apply(params), history=[], evidence=evidence)
        scores = found.score(trained, Job({"w": params["w"] / dtype(3)}, mask, 0, Budget(0, 1)))["w"]
        assert np.isfinite(scores.astype(np.float64)).all(), name
        assert select({"w": scores}, mask, 7).kept == 7


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "gradient-norm"])
def test_pruning_at_initialization_looks_at_the_rewind_point(name):
    assert get_criterion(name).at == "rewind"


def test_synflow_goes_in_a_hundred_rounds():
    assert get_criterion("synflow").rounds == 100
