"""Stacked steps that a device records and replays: bit for bit the steps themselves, or not recorded, and said."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lottery.trainers.gd import stacked
from lottery.trainers.gd.stack import evaluate_stack, stack_of
from lottery.trainers.gd.stacked import train_stacked
from lottery.trainers.gd.stacks import step as step_module
from lottery.trainers.gd.stacks.evaluations import Evaluations
from lottery.trainers.gd.stacks.layers import LinearInProducts, stacking
from lottery.trainers.gd.stacks.masks import StackedMasks, stacked_masks
from lottery.trainers.gd.stacks.program import WARM_UPS, Program
from lottery.trainers.gd.stacks.recording import CudaGraphs, recorder_for
from lottery.trainers.gd.stacks.step import cross_entropies, loss_apart, stacked_gradients
from lottery.trainers.gd.stacks.telling import Once
from pruning.jobs import Job, Trained
from tests.lottery.tape import Repeating, TapeRecorder
from tests.lottery.test_gd_stacked import NOTHING, SETTINGS, alone, assert_same_trainings, conv, jobs_of, mlp, ready

CPU = torch.device("cpu")


class Attending(nn.Module):
    """Attention over the six numbers of an example."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.up, self.norm, self.out = nn.Linear(1, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(x.unsqueeze(-1))
        return self.out(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def convolutional(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(8, 3))


def embedding(seed: int = 0) -> nn.Module:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(5, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.words((2 * x.abs()).long().clamp(0, 4)).mean(1))

    torch.manual_seed(seed)
    return Reading()


MODELS = {"mlp": mlp, "conv": conv, "batch norm": convolutional, "attention": Attending, "embedding": embedding}


def recorded(monkeypatch, recorder: Any, model: Any, jobs: list[Job] | None = None, **settings: Any):
    """Train three jobs as a device with this recorder would; return the results and what was said."""
    said: list[str] = []
    monkeypatch.setattr(stacked, "recorder_for", lambda device, dtypes: recorder)
    trainer = replace(ready(model, **settings), tell=Once(said.append))
    return train_stacked(trainer, jobs or jobs_of(trainer, model)), said


def assert_same_bits(some: list[Trained], others: list[Trained]) -> None:
    for one, other in zip(some, others, strict=True):
        assert repr(one.history) == repr(other.history) and one.diverged == other.diverged
        for name, value in one.params.items():
            assert value.tobytes() == other.params[name].tobytes(), name


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_is_recorded_gives_the_bits_of_the_steps_themselves(model, settings, monkeypatch):
    tapes, settings = TapeRecorder(), settings | {"steps": 30, "eval_every": 5}
    found, said = recorded(monkeypatch, tapes, model, **settings)
    # A step, and an evaluation of either part.
    assert len(tapes.tapes) == 3 and tapes.asides == 3 * WARM_UPS and not said
    assert_same_bits(found, recorded(monkeypatch, Repeating(), model, **settings)[0])


def as_on_cuda(monkeypatch) -> TapeRecorder:
    """Train on the CPU by all the ways that are taken on CUDA."""
    tapes = TapeRecorder()

    @contextlib.contextmanager
    def ways(device: torch.device) -> Iterator[None]:
        with stacking(device), LinearInProducts():
            yield

    def in_bytes(trained: Any, jobs: Any) -> StackedMasks:
        return StackedMasks({name: kept == 0 for name, kept in stacked_masks(trained, jobs).kept.items()}, {})

    monkeypatch.setattr(stacked, "recorder_for", lambda device, dtypes: tapes)
    monkeypatch.setattr(stacked, "stacking", ways)
    monkeypatch.setattr(stacked, "stacked_masks", in_bytes)
    monkeypatch.setattr(step_module, "stacked_gradients", loss_apart)
    return tapes


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_runs_on_cuda_trains_what_is_trained_alone(model, monkeypatch):
    settings: dict[str, Any] = SETTINGS["sgd"] | {"schedule": "cosine", "steps": 30, "eval_every": 5}
    trainer, tapes = ready(model, **settings), as_on_cuda(monkeypatch)
    jobs = jobs_of(trainer, model)
    assert_same_trainings(train_stacked(trainer, jobs), alone(trainer, jobs), jobs, rtol=1e-4, atol=1e-5)
    assert len(tapes.tapes) == 3


def test_a_step_on_cuda_is_few_kernels(monkeypatch):
    tapes = as_on_cuda(monkeypatch)
    trainer = ready(mlp, eval_every=5)
    train_stacked(trainer, jobs_of(trainer, mlp))
    # Views are none; of two layers, a ReLU, a loss, two masks and Adam.
    made = [str(func) for func, *_, made in tapes.tapes[0].entries if made or func._schema.is_mutable]
    assert len(made) <= 40, made


@pytest.mark.parametrize("shape", [(), (4,), (4, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_stacked_layers_give_what_each_gives_and_gradients_that_lie_as_weights_do(shape, bias):
    generator = torch.Generator().manual_seed(0)
    inputs, weights, biases = (
        torch.randn(size, generator=generator, dtype=torch.float64) for size in ((5, *shape, 3), (5, 7, 3), (5, 7))
    )

    def layer(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, w, b if bias else None)

    for dims, given in (((0, 0, 0), inputs), ((None, 0, 0), inputs[0])):
        found = []
        for ours in (True, False):
            leaves = [tensor.clone().requires_grad_() for tensor in (given, weights, biases)]
            with LinearInProducts() if ours else contextlib.nullcontext():
                outputs = torch.func.vmap(layer, dims)(*leaves)
                (outputs**2).sum().backward()
            assert leaves[1].grad is not None and leaves[1].grad.is_contiguous()
            found.append([outputs, *(leaf.grad for leaf in leaves if leaf.grad is not None)])
        assert len(found[0]) == len(found[1]) == (4 if bias else 3)
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


LOSSES: dict[str, Any] = {
    "plain": nn.functional.cross_entropy,
    "smoothed": functools.partial(nn.functional.cross_entropy, label_smoothing=0.1),
    "another label": functools.partial(nn.functional.cross_entropy, ignore_index=1),
    "weighted": functools.partial(nn.functional.cross_entropy, weight=torch.tensor([1.0, 2.0, 3.0, 4.0])),
    "sums": functools.partial(nn.functional.cross_entropy, reduction="sum"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("shape", [(), (2,)])
def test_cross_entropies_of_all_networks_at_once_are_those_of_each(loss, shape):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn((3, 6, 4, *shape), generator=generator)
    targets = torch.randint(0, 4, (3, 6, *shape), generator=generator)
    targets[0, :2] = 1
    targets[1, :2] = targets[2] = 1 if getattr(loss, "keywords", {}).get("ignore_index") else -100
    expected = torch.stack([loss(*pair) for pair in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(cross_entropies(loss, outputs, targets), expected, equal_nan=True)


@pytest.mark.parametrize("model", [mlp, convolutional])
def test_a_diverged_network_leaves_its_neighbours_their_bits(model, monkeypatch):
    trainer = ready(model)
    jobs = jobs_of(trainer, model)
    last = list(jobs[1].params)[-1]
    broken = replace(jobs[1], params={**jobs[1].params, last: np.full(3, np.nan, np.float32)})
    found, said = recorded(monkeypatch, TapeRecorder(), model, [jobs[0], broken, jobs[2]], eval_every=10)
    whole, _ = recorded(monkeypatch, TapeRecorder(), model, jobs, eval_every=10)
    assert found[1].diverged == "the loss is not finite at step 10" and not said
    assert_same_bits([found[0], found[2]], [whole[0], whole[2]])


class Failing(TapeRecorder):
    def record(self, work: Any) -> Any:
        super().record(work)
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


class Wrong(TapeRecorder):
    def record(self, work: Any) -> Any:
        replay = super().record(work)
        return lambda: (replay(), replay())


@pytest.mark.parametrize(("kind", "reason"), [(Failing, "operation not permitted"), (Wrong, "computes something else")])
def test_what_cannot_be_recorded_goes_on_eagerly_and_that_is_said_once(kind, reason, monkeypatch):
    found, said = recorded(monkeypatch, kind(), mlp, eval_every=5)
    assert_same_bits(found, recorded(monkeypatch, Repeating(), mlp, eval_every=5)[0])
    steps = [line for line in said if line.startswith("a step of 3 stacked networks is not recorded as one program")]
    assert len(steps) == 1 and steps[0].endswith(reason)


@pytest.mark.parametrize("kind", ["attribute", "closure"])
def test_a_network_or_a_loss_that_counts_its_calls_is_not_recorded(kind, monkeypatch):
    calls = 0

    class Counting(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.layer, self.calls = nn.Linear(6, 3), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            if kind == "attribute":
                self.calls += 1
                return self.layer(x) * min(1.0, self.calls / 20)
            return self.layer(x)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1 if kind == "closure" else 0
        return nn.functional.cross_entropy(outputs, targets)

    def trained(recorder: Any) -> tuple[list[Trained], list[str]]:
        said: list[str] = []
        monkeypatch.setattr(stacked, "recorder_for", lambda device, dtypes: recorder)
        trainer = ready(Counting, optimizer="sgd", lr=0.1)
        trainer = replace(trainer, objective=replace(trainer.objective, loss=loss), tell=Once(said.append))
        return train_stacked(trainer, jobs_of(trainer, Counting)), said

    found, said = trained(TapeRecorder())
    assert "something in it changes from call to call" in said[0]
    assert_same_bits(found, trained(Repeating())[0])


class Calls:
    """A recorder that keeps what it is asked for."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def aside(self) -> Any:
        self.heard.append("aside")
        return torch.no_grad()

    def record(self, work: Any) -> Any:
        self.heard.append("record")
        return lambda: (self.heard.append("replay"), work())


def test_a_program_warms_up_is_recorded_is_compared_and_is_replayed():
    count, calls = torch.zeros(()), Calls()

    def work() -> None:
        calls.heard.append("work")
        count.add_(1)

    program = Program("counting", work, lambda: [count], calls, calls.heard.append)
    for number in range(1, 7):
        program.run()
        assert count == number and program.recorded == (number > WARM_UPS)
    compared = ["record", "replay", "work", "work"]
    assert calls.heard == ["aside", "work"] * WARM_UPS + compared + ["replay", "work"] * 2


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_gradient_of_a_loss_apart_is_the_same(model):
    trainer = ready(model)
    part, jobs, found = trainer.parts.train, jobs_of(trainer, model), []
    index = torch.arange(3 * 16).reshape(3, 16)
    for way in (stacked_gradients, loss_apart):
        stack = stack_of(trainer.model, jobs, [], CPU)
        with stacking(CPU):
            losses = way(stack, trainer.objective.loss, part.inputs[index], part.targets[index])  # pyright: ignore
        found.append([losses, *(leaf.grad for leaf in stack.trained.values())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_masks_as_bytes_set_the_same_gradients_to_zero_as_numbers():
    trainer = ready(mlp)
    jobs, leaves = jobs_of(trainer, mlp), []
    for _ in range(2):
        stack = stack_of(trainer.model, jobs, [], CPU)
        for leaf in stack.trained.values():
            leaf.grad = torch.ones_like(leaf)
        leaves.append(stack.trained)
    numbers = stacked_masks(leaves[0], jobs)
    numbers.apply_to_gradients(leaves[0])
    removed = {name: keep == 0 for name, keep in numbers.kept.items()}
    assert all(mask.element_size() == 1 for mask in removed.values()) and len(removed) == 2
    StackedMasks(removed, {}).apply_to_gradients(leaves[1])
    for name, leaf in leaves[0].items():
        assert torch.equal(leaf.grad, leaves[1][name].grad), name  # pyright: ignore
    assert leaves[1]["0.weight"].grad.sum() < leaves[1]["0.weight"].numel()  # pyright: ignore


def evaluations(model: Any, at_once: int, metric: Any = None) -> tuple[Evaluations, TapeRecorder, list[str], Any]:
    said: list[str] = []
    trainer, tapes = ready(model, metric=metric), TapeRecorder()
    stack, part = stack_of(trainer.model, jobs_of(trainer, model), [], CPU), trainer.parts.test
    looks = Evaluations(stack, part, trainer.objective, 7, at_once, tapes, said.append)  # pyright: ignore

    def expected() -> Any:
        return evaluate_stack(stack, [2, 0], part, trainer.objective, 7)  # pyright: ignore

    return looks, tapes, said, expected


def batches_of(tape: Any) -> int:
    return sum("argmax" in str(func) for func, *_ in tape.entries)


def test_evaluations_are_recorded_in_batches_as_large_as_the_device_holds():
    looks, tapes, said, expected = evaluations(convolutional, at_once=1000)
    for _ in range(WARM_UPS + 4):
        np.testing.assert_allclose(looks.measured([2, 0]), expected(), rtol=1e-6)
        with torch.no_grad():
            for tensor in looks.stack.trained.values():
                tensor.mul_(1.1)
    assert not said and [batches_of(tape) for tape in tapes.tapes] == [1]


def test_a_network_that_looks_at_its_batch_keeps_the_batches_it_has_alone():
    def normed(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3))

    looks, tapes, said, expected = evaluations(normed, at_once=1000)
    for _ in range(WARM_UPS + 3):
        np.testing.assert_allclose(looks.measured([2, 0]), expected(), rtol=1e-6)
    assert not said and [batches_of(tape) for tape in tapes.tapes] == [5]


def test_a_metric_of_one_network_is_not_recorded():
    def worst(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float(np.abs(outputs.numpy()).max()) if len(targets) else 0.0

    from lottery.networks.objectives.metric import Metric

    looks, tapes, said, expected = evaluations(mlp, 1000, Metric("worst", worst, additive=True))
    for _ in range(WARM_UPS + 3):
        assert looks.measured([2, 0]) == expected()
    assert not tapes.tapes and "one after the other" in said[0] and len(said) == 1


def test_a_cpu_and_double_precision_record_nothing():
    assert recorder_for(CPU, {torch.float32}) is None
    assert recorder_for(torch.device("cuda"), {torch.float64}) is None


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.cuda
@needs_cuda
class TestOnCuda:
    @pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
    @pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
    def test_graphs_give_the_bits_of_the_steps_themselves(self, model, settings, monkeypatch):
        settings = settings | {"eval_every": 5, "device": "cuda"}
        trainer = ready(model, **settings)
        jobs, found = jobs_of(trainer, model), []
        for make in (lambda: CudaGraphs(trainer.device), Repeating):
            said: list[str] = []
            monkeypatch.setattr(stacked, "recorder_for", lambda device, dtypes, make=make: make())
            found.append(replace(trainer, tell=Once(said.append)).train_group(jobs, NOTHING))
            assert not said
        assert_same_bits(*found)

    @pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
    def test_the_same_training_twice_gives_the_same_bits(self, model):
        trainer = ready(model, device="cuda", eval_every=5)
        jobs = jobs_of(trainer, model)
        assert_same_bits(trainer.train_group(jobs, NOTHING), trainer.train_group(jobs, NOTHING))

    @pytest.mark.parametrize("model", [mlp, conv])
    def test_each_job_gets_what_it_gets_alone(self, model):
        trainer = ready(model, device="cuda", optimizer="sgd", lr=0.05, momentum=0.9)
        jobs = jobs_of(trainer, model)
        assert_same_trainings(trainer.train_group(jobs, NOTHING), alone(trainer, jobs), jobs, rtol=1e-3, atol=1e-4)

    def test_nothing_waits_for_the_device_between_evaluations(self, monkeypatch):
        trainer = ready(mlp, device="cuda", eval_every=50)
        stacked_jobs, run = jobs_of(trainer, mlp), Program.run

        def watched(program: Program) -> None:
            torch.cuda.set_sync_debug_mode("error" if program.recorded else "default")
            try:
                run(program)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        monkeypatch.setattr(Program, "run", watched)
        assert all(trained.diverged is None for trained in trainer.train_group(stacked_jobs, NOTHING))

    def test_a_recording_that_fails_leaves_the_stream_and_the_contents(self):
        device, said = torch.device("cuda"), []
        count = torch.zeros(2, device=device)

        def work() -> None:
            count.add_(1)
            count.sum().item()

        program = Program("counting", work, lambda: [count], CudaGraphs(device), said.append)
        before = torch.cuda.current_stream()
        for _ in range(6):
            program.run()
        assert torch.cuda.current_stream() == before and count.tolist() == [6.0, 6.0] and len(said) == 1
