"""`max_memory` splits stacks; what does not stack is said once; memory that does not do is one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lottery.settings.sizes import size_in_bytes
from lottery.trainers import TRAINERS
from lottery.trainers.gd import trainer as trainer_module
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.stacked import groups_of
from lottery.trainers.gd.stacks.memory import Footprint, footprint, memory_limit, most_networks
from lottery.trainers.gd.stacks.telling import Once
from pruning.errors import BadValue, RunError
from tests.lottery.test_gd_stacked import NOTHING, jobs_of, mlp, ready

CPU = torch.device("cpu")


def of(trainer: Any, device: torch.device = CPU) -> Footprint:
    job = jobs_of(trainer, mlp, 1)[0]
    model = network_for(trainer.model, job, trainer.config.train_only, CPU).model
    return footprint(model, trainer.config, trainer.parts, job, device)


def test_what_one_network_takes_is_counted():
    trainer = ready(mlp, batch_size=16, optimizer="adam")
    weights, prunable = 4 * (6 * 8 + 8 + 8 * 3 + 3), 6 * 8 + 8 * 3
    one = of(trainer)
    # Weights and two moments, and gradients; masks as numbers.
    assert one.held == 4 * weights + 4 * prunable
    # Copies of the inputs, what three layers give; the example itself with its label.
    assert one.example == 4 * (6 + 8 + 8 + 3) + 4 * 6 + 8
    assert one.step == one.held + 10 * 16 * one.example
    plain = of(ready(mlp, optimizer="sgd"))
    assert plain.held == one.held - 2 * weights
    assert of(ready(mlp, optimizer="sgd", momentum=0.9)).held == plain.held + weights
    # Masks as bytes; a recording is compared with the step, for which weights and moments are copied twice.
    assert of(trainer, torch.device("cuda")).held == 3 * 3 * weights + weights + prunable


def test_a_stack_is_split_so_that_each_piece_fits():
    trainer = ready(mlp)
    one = of(trainer)

    def groups(limit: float | None, count: int = 7) -> list[int]:
        config = replace(trainer.config, max_memory=None if limit is None else str(int(limit)))
        found = groups_of(replace(trainer, config=config), jobs_of(trainer, mlp, count), NOTHING)
        assert limit is None or all(len(group) * one.step <= limit for group in found if len(group) > 1)
        return [len(group) for group in found]

    assert groups(None) == [7]
    assert groups(7 * one.step + 1) == [7]
    assert groups(7 * one.step - 1) == [3, 4]
    assert groups(2 * one.step + 1) == [1, 2, 2, 2]
    assert groups(1) == [1] * 7


def test_a_wider_batch_and_a_larger_network_take_more():
    def wide(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))

    def step(model: Any, **settings: Any) -> float:
        trainer = ready(model, **settings)
        job = jobs_of(trainer, model, 1)[0]
        return footprint(trainer.model, trainer.config, trainer.parts, job, CPU).step

    assert step(mlp) < step(mlp, batch_size=32) < step(wide, batch_size=32)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("512mb", 512 * 10**6), ("7", 7), ("2TB", 2 * 10**12)],
)
def test_sizes_are_read(text, size):
    assert size_in_bytes(text) == size and memory_limit(GDConfig(max_memory=text), CPU) == size


@pytest.mark.parametrize("text", ["", "GB", "8 gigs", "-1GB", "0", "0.1", "1e400GB", "8GB 2"])
def test_what_is_no_size_is_refused_in_one_line(text):
    with pytest.raises(BadValue, match=r"^max_memory must be a size like 8GB, 512MB or 1.5GiB, not "):
        GDConfig(max_memory=text)


def test_it_changes_no_result_and_runs_made_without_it_are_found_again():
    assert "max_memory" in TRAINERS["gd"].value.no_result
    assert most_networks(Footprint(10, 1.0, 1), memory_limit(GDConfig(), CPU)) == float("inf")


@pytest.mark.parametrize(("count", "flag"), [(5, "--max-memory"), (1, "--batch-size")])
def test_memory_that_does_not_do_is_one_line_that_names_the_flag(count, flag, monkeypatch):
    def too_much(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")

    for name in ("train_stacked", "train_alone"):
        monkeypatch.setattr(trainer_module, name, too_much)
    trainer = ready(mlp)
    with pytest.raises(RunError, match=r"^cpu ran out of memory while .*" + flag) as caught:
        list(trainer.train(jobs_of(trainer, mlp, count), NOTHING))
    assert "\n" not in str(caught.value)


class Dropping(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else 2 * x


def branching(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 3), Branching())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Dropping, "layer 'body.1' (Dropout): dropout draws random numbers"),
        (
            branching,
            "layer '1' (Branching): vmap: It looks like you're attempting to use a Tensor in some",
        ),
    ],
)
def test_why_networks_do_not_stack_is_said_once_with_the_layer(model, said):
    lines: list[str] = []
    trainer = replace(ready(model), tell=Once(lines.append))
    for _ in range(3):
        assert [len(group) for group in groups_of(trainer, jobs_of(trainer, model, 5), NOTHING)] == [1] * 5
    assert len(lines) == 1
    assert lines[0].startswith(f"networks are trained one after the other, not stacked: {said}")


def test_nothing_is_said_where_stacking_would_not_gain():
    lines: list[str] = []
    trainer = replace(ready(Dropping), tell=Once(lines.append))
    assert len(groups_of(trainer, jobs_of(trainer, Dropping, 3), NOTHING)) == 3
    assert not lines
