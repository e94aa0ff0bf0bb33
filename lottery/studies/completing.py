"""Trainings beside a search (controls, copies, transfers): those that are missing, in the same stacks as at first."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

from lottery.results.delivery import reported
from lottery.runs.directory import RunDirectory
from lottery.search.frame.frame import Frame
from lottery.search.levels.progress import StepCounter
from pruning.errors import BadValue
from pruning.jobs import Budget, Job, Stacks, Trained, Trainer

Key = TypeVar("Key")


def own_budget(frame: Frame, run: RunDirectory, seed: int, level: int) -> Budget:
    """Return from which step to which a stored level was trained, so that what is compared with it is trained as long.

    That is the search's budget, or less where Early-Bird ended the training.
    """
    start = frame.rewind.start if level else 0
    return Budget(start, start + run.read_record(seed, level)["steps"])


def require_still_masks(frame: Frame) -> None:
    """Raise `BadValue` for a search whose masks move while they train: only their last positions are stored."""
    moves = getattr(frame.ask.config, "moves", "none")
    if moves != "none":
        raise BadValue(
            f"the masks of this run move while it trains ({moves}), and where they began is not stored: nothing can be "
            "trained in the place of its tickets"
        )


def train_missing(
    frame: Frame, jobs: Mapping[Key, Job], missing: Collection[Key], counter: StepCounter, level: int
) -> Iterator[tuple[Key, Trained, float]]:
    """Yield what is missing of a group of jobs, each as it is done, with the seconds that it took.

    The bits of a stack depend on all that is in it: where the trainer stacks the group, all of it is trained again.

    Args:
        frame: of the search beside which they are trained; its trainer is given everything in one piece, so that it can
            train it stacked, and is asked for what the search reports.
        jobs: the whole group.
        missing: the keys of the jobs to train.
        counter: shows their steps.
        level: that they belong to, for the bar.
    """
    if not missing:
        return
    trainer: Trainer = frame.setup.trainer
    needs = reported(frame.config, trainer)
    whole = isinstance(trainer, Stacks) and trainer.together(list(jobs.values()), needs)
    wanted = {key: job for key, job in jobs.items() if whole or key in missing}
    counter.expect(list(wanted.values()), level)
    began = time.perf_counter()
    for key, trained in zip(wanted, trainer.train(list(wanted.values()), needs), strict=True):
        now = time.perf_counter()
        if key in missing:
            yield key, trained, now - began
        began = now
