"""Replicates that were asked for together are trained together, whatever is asked for later."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lottery.runs.directory import RunDirectory
from lottery.runs.replicates import depth, join
from lottery.search.levels.engine import Replicates, search_levels
from pruning.jobs import Job, Trained
from tests.lottery.helpers import FakeTrainer, Quiet
from tests.lottery.test_engine import INITIAL, plan


@dataclass
class Stacking(FakeTrainer):
    """Trains what it is given in one stack, and remembers how many jobs each stack had."""

    stacks: list[int] = field(default_factory=list)

    def together(self, jobs: Sequence[Job], needs: frozenset[str]) -> bool:
        return len(jobs) > 1

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterator[Trained]:
        self.stacks.append(len(jobs))
        yield from super().train(jobs, needs)


def trained(run: RunDirectory, seeds: Sequence[int], trainer: FakeTrainer) -> None:
    groups = join(run, seeds)
    settings = plan(seed=min(seeds), replicates=len(seeds), levels=2)
    search_levels(settings, trainer, INITIAL, run, Quiet(), Replicates(tuple(seeds), groups))


def test_seeds_that_are_added_later_make_a_stack_of_their_own(tmp_path):
    run, first, later = RunDirectory(tmp_path), Stacking(), Stacking()
    trained(run, [0, 1, 2], first)
    trained(run, [0, 1, 2, 3, 4], later)
    assert first.stacks == [3, 3, 3] and later.stacks == [2, 2, 2]


def test_a_stack_that_was_cut_off_is_trained_again_as_it_was_begun(tmp_path):
    run = RunDirectory(tmp_path)
    trained(run, [0, 1, 2], Stacking())
    run.append_metrics({"seed": 2, "level": 2, "step": 1})
    run.append_metrics({"seed": 4, "level": 2, "step": 1})
    shutil.rmtree(run.level_path(1, 2))
    again = Stacking()
    trained(run, [0, 1], again)
    assert again.stacks == [3]
    # the stack's lines are written again, those of another group stay
    assert (tmp_path / "metrics.jsonl").read_text() == '{"seed": 4, "level": 2, "step": 1}\n'


def test_a_trainer_that_does_not_stack_trains_what_is_asked_for_and_no_more(tmp_path):
    run, trainer = RunDirectory(tmp_path), FakeTrainer()
    join(run, [0, 1, 2])
    trained(run, [0], trainer)
    assert len(trainer.jobs) == 3 and [depth(run, seed)[0] for seed in (0, 1, 2)] == [3, 0, 0]


def test_two_groups_at_one_level_are_two_trainings(tmp_path):
    run, trainer = RunDirectory(tmp_path), Stacking()
    join(run, [0, 1])
    trained(run, [0, 1, 2, 3], trainer)
    assert trainer.stacks == [2, 2] * 3
