"""A metric has one value whatever the batch size, and what it cannot say it does not say."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import Data, find_ticket
from lottery.data.parts import Loader, Tensors
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.metric import Metric
from lottery.networks.objectives.objective import accuracy, hits, objective_for
from lottery.networks.objectives.tallies import Tally
from lottery.state.tensors import state_of
from lottery.trainers.gd.stack import evaluate_stack, stack_of
from pruning.errors import BadValue, DataError, Diverged, LotteryError, RunError, UnknownName
from pruning.jobs import Budget, Job
from pruning.mask import Mask

CPU = torch.device("cpu")
G = torch.Generator().manual_seed(0)
X = torch.randn(101, 4, generator=G)
Y = (X[:, 0] + torch.randn(101, generator=G) > 1.0).long()
SIZES = (1, 7, 50, 500)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(4, 2)


def f1(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float(f1_score(targets.numpy(), outputs.argmax(1).numpy(), zero_division=0))  # type: ignore[arg-type]


def mean_hits(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(1) == targets).double().mean()


class Collected:
    """A metric that collects batches by itself, as those of torchmetrics do."""

    def __init__(self) -> None:
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def reset(self) -> None:
        self.batches = []

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.batches.append((outputs, targets))

    def compute(self) -> torch.Tensor:
        outputs, targets = (torch.cat(column) for column in zip(*self.batches, strict=True))
        return torch.tensor(f1(outputs, targets), dtype=torch.float64)


class CollectedModule(nn.Module):
    """The same, as a module that holds a buffer and cannot be called."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.inner = Collected()

    def reset(self) -> None:
        self.seen = torch.zeros(())
        self.inner.reset()

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.seen = self.seen + len(targets)
        self.inner.update(outputs, targets)

    def compute(self) -> torch.Tensor:
        assert self.seen == sum(len(targets) for _, targets in self.inner.batches)
        return self.inner.compute()


METRICS = {
    "function": (f1, f1),
    "object": (Collected(), f1),
    "module": (CollectedModule(), f1),
    "f1": ("f1", f1),
    "balanced accuracy": ("balanced_accuracy", lambda o, t: balanced_accuracy_score(t, o.argmax(1))),
    "area": ("roc_auc", lambda o, t: roc_auc_score(t, F.softmax(o.double(), 1)[:, 1])),
    "log loss": ("neg_log_loss", lambda o, t: -F.cross_entropy(o.double(), t).item()),
    "additive": (Metric("hits", mean_hits, additive=True), mean_hits),
    "default": (None, mean_hits),
}


class TestOneValue:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("name", METRICS)
    def test_whatever_the_batch_size(self, name, size):
        given, expected = METRICS[name]
        model = network().eval()
        true = float(expected(model(X).detach(), Y))
        objective = objective_for(Y, None, given)
        loader = Loader(DataLoader(TensorDataset(X, Y), size))
        for part in (Tensors(X, Y), loader):
            loss, found = evaluate(model, part, objective, CPU, size)
            assert found == pytest.approx(true, abs=1e-6)
            assert loss == pytest.approx(F.cross_entropy(model(X), Y).item(), abs=1e-6)

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("name", METRICS)
    def test_stacked_as_alone(self, name, size):
        objective, part = objective_for(Y, None, METRICS[name][0]), Tensors(X, Y)
        models = [network(seed) for seed in range(3)]
        mask = Mask.dense({"weight": (2, 4)})
        jobs = [Job(state_of(model), mask, seed, Budget(0, 1)) for seed, model in enumerate(models)]
        stack = stack_of(network(), jobs, (), CPU)
        together = evaluate_stack(stack, [2, 0], part, objective, size)
        alone = [evaluate(models[row], part, objective, CPU, size) for row in (2, 0)]
        assert np.asarray(together) == pytest.approx(np.asarray(alone), abs=1e-6)

    def test_an_object_of_the_callers_is_neither_read_nor_changed(self):
        given = Collected()
        given.update(torch.eye(2), torch.tensor([1, 0]))
        objective = objective_for(Y, None, given)
        first, second = (evaluate(network(), Tensors(X, Y), objective, CPU, 10)[1] for _ in range(2))
        assert first == second == pytest.approx(f1(network()(X), Y)) and len(given.batches) == 1

    def test_half_precision_comes_as_float32(self):
        objective = objective_for(Y, None, lambda outputs, targets: f1(outputs, targets) + len(outputs.numpy()))
        tally = Tally(objective)
        tally.add(network()(X).to(torch.bfloat16), Y)
        assert tally.result()[1] > 100


class TestWhatCannotBeJoined:
    @staticmethod
    def value(metric: Any, *batches: tuple[Any, Any]) -> float:
        tally = Tally(objective_for(Y, lambda outputs, targets: torch.zeros(()), metric))
        for outputs, targets in batches:
            tally.add(outputs, targets)
        return tally.result()[1]

    def test_batches_of_other_lengths_are_refused_in_one_line(self):
        ragged = [(torch.ones(2, length), torch.ones(2)) for length in (3, 5)]
        with pytest.raises(DataError, match=r"\(3,\) and \(5,\) for each example.*additive=True"):
            self.value(lambda outputs, targets: outputs.mean(), *ragged)
        additive = Metric("mean", lambda outputs, targets: outputs.mean(), additive=True)
        assert self.value(additive, *ragged) == 1.0

    def test_outputs_with_the_examples_along_another_axis_are_refused(self):
        with pytest.raises(DataError, match=r"shape \(5, 2\) in a batch of 2 examples"):
            self.value(lambda outputs, targets: outputs.mean(), *[(torch.ones(5, 2), torch.ones(2))] * 2)

    def test_an_entry_that_nobody_reads_may_be_lost(self):
        batch = ({"scores": torch.ones(2), "loss": torch.ones(())}, torch.ones(2))
        assert self.value(lambda outputs, targets: outputs["scores"].sum(), batch, batch) == 4.0
        with pytest.raises(RunError, match=r"sees None for .* outputs\['loss'\] \(shape \(\) in a batch of 2"):
            self.value(lambda outputs, targets: outputs["loss"].mean(), batch, batch)

    def test_states_of_recurrent_layers_beside_the_outputs(self):
        batch = ((torch.ones(2, 3), torch.zeros(1, 2, 8)), torch.ones(2))
        assert self.value(lambda outputs, targets: len(outputs[0]), batch, batch) == 4.0


class TestIgnoredLabels:
    LABELS = torch.tensor([0, 1, 255, 1, 255])
    OUTPUTS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])

    @pytest.mark.parametrize(
        "loss",
        [
            nn.CrossEntropyLoss(ignore_index=255),
            nn.NLLLoss(ignore_index=255),
            functools.partial(F.cross_entropy, ignore_index=255),
            nn.CrossEntropyLoss(ignore_index=255, weight=torch.tensor([1.0, 5.0])),
        ],
    )
    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_the_loss_says_which(self, loss, size):
        """Alone in a batch, an ignored label makes the batch's loss 0 / 0: it has no say."""
        objective = objective_for(self.LABELS, loss)
        found = evaluate(nn.Identity(), Tensors(self.OUTPUTS, self.LABELS), objective, CPU, size)
        assert found == pytest.approx((loss(self.OUTPUTS, self.LABELS).item(), 2 / 3))

    def test_by_default_as_pytorch_does(self):
        labels = torch.where(self.LABELS == 255, -100, self.LABELS)
        assert accuracy(self.OUTPUTS, labels).item() == 2 / 3
        images = self.OUTPUTS.reshape(1, 5, 2).transpose(1, 2)
        assert hits(images, labels.reshape(1, 5)).tolist() == [2, 3]

    def test_probabilities_of_classes_are_labels_too(self):
        targets = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [1.0, 0.0], [0.0, 1.0]])
        metric = objective_for(targets, nn.CrossEntropyLoss()).metric
        assert (metric.name, float(metric.function(self.OUTPUTS, targets))) == ("accuracy", 4 / 5)

    def test_a_loss_that_sums_gives_its_mean_over_examples(self):
        objective = objective_for(Y, nn.CrossEntropyLoss(reduction="sum"))
        found = [evaluate(network(), Tensors(X, Y), objective, CPU, size)[0] for size in SIZES]
        assert found == pytest.approx([F.cross_entropy(network()(X), Y).item()] * len(SIZES))

    @pytest.mark.parametrize("trainer", ["gd", "es"])
    def test_a_search_reports_the_labels_that_count(self, trainer, tmp_path):
        pixels = torch.where(torch.arange(101) % 3 == 0, 255, Y)
        budget: dict[str, Any] = {"steps": 6} if trainer == "gd" else {"generations": 3, "population": 4}
        ticket = find_ticket(
            network(), Data(train=(X, pixels), validation=(X, pixels)), loss=nn.CrossEntropyLoss(ignore_index=255),
            trainer=trainer, levels=1, tolerance=1.0, batch_size=8, out=tmp_path, quiet=True, **budget,
        )  # fmt: skip
        chosen, counts = ticket.trained(network()).eval()(X).argmax(1), pixels != 255
        assert ticket.info["validation"] == pytest.approx((chosen == pixels)[counts].double().mean().item(), abs=1e-9)

    def test_minus_100_is_taken_and_other_negative_labels_are_not(self, tmp_path):
        def search(label: int, where: torch.Tensor) -> Any:
            data = (X, torch.where(where, label, Y))
            return find_ticket(network(), data, levels=1, steps=4, tolerance=1.0, out=tmp_path, quiet=True)

        some = torch.arange(101) % 3 == 0
        assert 0 <= search(-100, some).info["validation"] <= 1
        with pytest.raises(DataError, match="the smallest is -1, expected 0 or more"):
            search(-1, some)
        with pytest.raises(DataError, match="labels are all -100"):
            search(-100, some | True)


def test_hits_are_counted_and_their_mean_is_a_float64():
    for right in range(0, 1001, 7):
        outputs = torch.eye(2)[(torch.arange(1000) >= right).long()]
        assert accuracy(outputs, torch.zeros(1000).long()).item() == right / 1000


class TestWrongMetrics:
    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            (3, BadValue, "metric must be a function of"),
            (Collected, BadValue, "Collected is a class: give an instance"),
            ("f1_scores", UnknownName, "unknown metric 'f1_scores': did you mean"),
            (lambda outputs, targets: None, DataError, "one number, not None"),
            (lambda outputs, targets: "good", DataError, "one number, not str"),
            (lambda outputs, targets: outputs.argmax(1) == targets, DataError, "must return one number"),
            (
                lambda outputs, targets: outputs.missing,
                DataError,
                r"the metric fails: AttributeError.*test_metrics\.py",
            ),
        ],
    )
    @pytest.mark.parametrize("trainer", ["gd", "es"])
    def test_are_one_line_before_anything_is_written(self, given, error, message, trainer, tmp_path):
        with pytest.raises(error, match=message):
            find_ticket(network(), (X, Y), metric=given, trainer=trainer, out=tmp_path, quiet=True)
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]

    @pytest.mark.parametrize("measure_at", ["final", "early-stop"])
    def test_a_metric_that_is_no_number_is_named_and_decides_nothing(self, measure_at, tmp_path):
        with pytest.raises(Diverged, match="the metric is not finite on the validation part at step .*: nan"):
            find_ticket(
                network(), (X, Y), metric=lambda outputs, targets: float("nan"), steps=4, levels=1,
                measure_at=measure_at, out=tmp_path, quiet=True,
            )  # fmt: skip

    def test_a_metric_that_fails_in_the_middle_is_one_line(self, tmp_path):
        calls: list[int] = []

        def fails_later(outputs: torch.Tensor, targets: torch.Tensor) -> float:
            calls.append(1)
            return 1 / (3 - len(calls))

        with pytest.raises(LotteryError, match=r"the metric fails: ZeroDivisionError.*test_metrics\.py, line \d+"):
            find_ticket(network(), (X, Y), metric=fails_later, steps=40, levels=1, out=tmp_path, quiet=True)


class Heads(nn.Module):
    """A network whose second head is there in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aside = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return (self.body(x), self.aside(x)) if self.training else self.body(x)


def both(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    return sum(F.cross_entropy(each, targets) for each in (outputs if isinstance(outputs, tuple) else (outputs,)))  # type: ignore[return-value]


@pytest.mark.parametrize("metric", [None, f1, "f1", Metric("hits", mean_hits, additive=True)])
def test_the_metric_sees_what_evaluation_gives(metric, tmp_path):
    ticket = find_ticket(
        Heads(), (X, Y), loss=both, metric=metric, steps=4, levels=1, tolerance=1.0, out=tmp_path, quiet=True
    )
    assert 0 <= ticket.info["validation"] <= 1


def test_a_named_metric_is_a_setting(tmp_path):
    data = Data(train=(X, Y), validation=(X, Y))
    settings: dict[str, Any] = {"steps": 4, "levels": 1, "tolerance": 1.0, "out": tmp_path, "quiet": True}
    ticket = find_ticket(network(), data, metric="f1", **settings)
    again = find_ticket(network(), data, config={"metric": "f1"}, **settings)
    assert ticket.info["config"]["metric"] == "f1" and again.path == ticket.path
    assert ticket.info["validation"] == pytest.approx(f1(ticket.trained(network()).eval()(X), Y))


class Restless(nn.Module):
    """A network that counts its calls in a buffer and draws random numbers, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(4, 2), nn.BatchNorm1d(2).eval()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.norm(self.body(x) + torch.rand(2))


class TestAnEvaluationChangesNothing:
    def test_neither_modes_nor_buffers_nor_random_state(self):
        model = Restless()
        before, modes = state_of(model), [module.training for module in model.modules()]
        drawn = torch.random.get_rng_state()
        first, second = (evaluate(model, Tensors(X, Y), objective_for(Y), CPU, 10) for _ in range(2))
        assert first == second and torch.equal(drawn, torch.random.get_rng_state())
        assert [module.training for module in model.modules()] == modes == [True, True, False]
        assert all(np.array_equal(before[name], value) for name, value in state_of(model).items())

    def test_neither_where_the_metric_fails(self):
        model = Restless()
        with pytest.raises(RunError, match="the metric fails"):
            evaluate(model, Tensors(X, Y), objective_for(Y, None, lambda outputs, targets: 1 / 0), CPU, 10)
        assert model.training and model.calls == 0

    def test_what_it_computes_can_be_learned_from(self):
        """Tensors made in inference mode cannot: a network may keep some for its next step."""

        class Keeping(nn.Linear):
            kept: torch.Tensor | None = None

            def forward(self, input: torch.Tensor) -> torch.Tensor:
                outputs = super().forward(input if self.kept is None else input * self.kept)
                self.kept = torch.ones(())
                return outputs

        model = Keeping(4, 2)
        evaluate(model, Tensors(X, Y), objective_for(Y), CPU, 101)
        F.cross_entropy(model(X), Y).backward()
        assert model.weight.grad is not None


def test_evolution_measures_what_pytorch_measures(tmp_path: Path):
    parts = Data(train=(X, Y), validation=(X, Y), test=(X[:51], Y[:51]))
    ticket = find_ticket(
        network(), parts, trainer="es", metric=f1, generations=4, population=4, batch_size=2, levels=1, tolerance=1.0,
        out=tmp_path, quiet=True,
    )  # fmt: skip
    assert ticket.info["test"] == pytest.approx(f1(ticket.trained(network()).eval()(X[:51]), Y[:51]))
