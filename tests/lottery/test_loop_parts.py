"""The parts of a training loop: when to evaluate and to end, what is kept, which weights others see."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch
from torch import nn

from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.averaging import Average
from lottery.trainers.gd.loop.best import Best
from lottery.trainers.gd.loop.course import course_of
from lottery.trainers.gd.loop.history import History, MeanLoss
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.loop.precision import scaler_for, slow_half
from lottery.trainers.gd.loop.stepping import masked_parameters
from lottery.trainers.gd.loop.weights import Weights
from lottery.trainers.gd.optimizers.given import optimizers_for
from pruning.jobs import Budget, Evaluation, Job
from pruning.mask import Mask

CPU = torch.device("cpu")


def point(step: int, loss: float | None, train_loss: float | None = 0.5) -> Evaluation:
    return Evaluation(step, train_loss, loss, 0.5, None, None)


class TestCourse:
    def test_evaluations_by_default_and_as_asked(self):
        assert course_of(Budget(0, 200), GDConfig(), 200).every == 10
        assert course_of(Budget(0, 7), GDConfig(), 7).every == 1
        assert course_of(Budget(0, 200), GDConfig(eval_every=3), 200).every == 3

    def test_patience_ends_a_training_once_it_may_end(self):
        course = course_of(Budget(0, 50), GDConfig(eval_every=10, patience=2), 50)
        for step, loss, may_end in ((10, 0.5, False), (20, 0.6, False), (30, 0.7, False)):
            course.lose_patience(point(step, loss), may_end)
        assert (course.stop, course.impatient_at) == (50, None)
        course.lose_patience(point(40, 0.8), True)
        assert (course.stop, course.impatient_at, course.ended_early(40)) == (40, 40, True)

    def test_patience_that_is_over_at_the_last_step_ended_nothing(self):
        course = course_of(Budget(0, 20), GDConfig(eval_every=10, patience=1), 20)
        for step in (10, 20):
            course.lose_patience(point(step, 0.5), True)
        assert (course.stop, course.impatient_at, course.ended_early(20)) == (20, None, False)

    def test_the_step_at_which_it_is_ended_is_evaluated(self):
        course = course_of(Budget(0, 50), GDConfig(eval_every=10), 50)
        course.end(13)
        assert course.evaluates(13) and not course.evaluates(14)


class TestHistory:
    @pytest.mark.parametrize(
        ("last", "failed"),
        [(point(2, 0.4), None), (point(2, float("nan")), "validation part"), (point(2, 0.4, float("inf")), "step 2")],
    )
    def test_a_loss_that_is_no_number_is_said(self, last, failed):
        history = History(Best())
        history.add(point(1, 0.6), lambda: {"w": np.ones(1)})
        history.add(last, lambda: {"w": np.zeros(1)})
        assert [each.step for each in history.points] == [1, 2]
        assert history.failed is None if failed is None else failed in (history.failed or "")

    def test_the_best_weights_are_kept_where_they_are_asked_for(self):
        for best, kept in ((Best(), 3), (None, None)):
            history = History(best)
            for step, loss in enumerate((0.9, 0.7, 0.8, 0.2)):
                history.add(point(step, loss), lambda step=step: {"w": np.array(step)})
            assert history.best_params == (None if kept is None else {"w": 3})

    def test_the_mean_of_one_networks_losses(self):
        mean = MeanLoss(torch.zeros(()))
        for loss in (1.0, 2.0, 6.0):
            mean.add(torch.tensor(loss))
        assert mean.taken() == [3.0]
        mean.add(torch.tensor(0.25, dtype=torch.float64))
        assert mean.taken() == [0.25]


def job(model: nn.Module, keep: list[list[int]]) -> Job:
    params = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    return Job(params, Mask({"weight": keep}), 0, Budget(0, 10))


class TestNetwork:
    def test_it_is_set_up_masked_in_training_mode_and_frozen(self):
        model = nn.Linear(2, 2).eval()
        network = network_for(model, job(model, [[1, 0], [1, 1]]), ("bias",), CPU)
        assert network.model is not model and network.model.training and not model.training
        assert network.state()["weight"][0, 1] == 0 != model.weight[0, 1]
        assert [parameter is network.model.weight for parameter in network.frozen] == [True]
        network.thaw()
        assert all(parameter.requires_grad for parameter in network.model.parameters())

    def test_weights_that_took_part_once_were_explored(self):
        model = nn.Linear(2, 1)
        network = network_for(model, job(model, [[1, 0]]), (), CPU)
        network.moved_to(Mask({"weight": [[0, 1]]}))
        assert network.mask == Mask({"weight": [[0, 1]]}) and network.explored == Mask({"weight": [[1, 1]]})

    def test_only_tensors_that_lost_weights_are_masked(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        masked = masked_parameters(model, Mask({"0.weight": np.ones((2, 2)), "1.weight": np.eye(2)}))
        assert [parameter is model[1].weight for parameter in masked.parameters] == [True]
        assert masked.keeps[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]

    def test_losses_are_scaled_for_halves_without_exponents_only(self):
        assert [scaler_for(each, CPU) is not None for each in ("float32", "bf16", "fp16")] == [False, False, True]


def test_an_average_is_evaluated_and_delivered_and_never_rewound_to():
    model = nn.Linear(1, 1, bias=False)
    network = network_for(model, job(model, [[1]]), (), CPU)
    weights = Weights(network, optimizers_for(network.model, GDConfig()), Average(network.model, 0.5))
    start = network.state()["weight"].item()
    with torch.no_grad():
        next(network.model.parameters()).add_(1.0)
    weights.stepped()
    averaged = start + 1 - 2 / 11  # the decay of the first update is 2 / 11
    with weights.evaluated():
        assert network.state()["weight"].item() == pytest.approx(averaged, rel=1e-6, abs=1e-6)
    assert weights.to_rewind_to()["weight"].item() == pytest.approx(start + 1)
    weights.deliver()
    assert network.state()["weight"].item() == pytest.approx(averaged, rel=1e-6, abs=1e-6)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="PyTorch knows of x86 alone")
def test_half_precision_that_is_slow_here_says_so():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert "float32 is usually faster" in (slow_half("bf16", cpu, lambda: False) or "")
    assert slow_half("bf16", cpu, lambda: True) is None
    assert slow_half("float32", cpu, lambda: False) is None
    assert slow_half("bf16", cuda, lambda: False) is None
