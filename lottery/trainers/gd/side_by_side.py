"""Several trainings at once, a core or more for each: compiled steps do not need Python while they run.

The bits of each are those that it has alone: nothing is shared, and its threads are no part of them. What it tells is
held back until those before it are done: files are written as if one were trained after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from lottery.trainers.gd.alone import training_in_strides
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.learning import Losses
from pruning.jobs import Evaluation, Job, Trained
from pruning.watch import Silent, Watch

_Going = Generator[Callable[[], Losses], Losses, Trained]


@dataclass
class InTurn(Silent):
    """Tells a watch of one training, from when its turn has come; what was before is told then.

    Attributes:
        watch: is told.
        held: what it has still to be told.
        open: whether the turn has come.
        done: whether the training is over.
    """

    watch: Watch
    held: list[Callable[[], None]] = field(default_factory=list)
    open: bool = False
    done: bool = False

    def stepped(self, job: Job, step: int) -> None:
        """Tell, or hold back."""
        self._tell(self.watch.stepped, job, step)

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """Tell, or hold back."""
        self._tell(self.watch.evaluated, job, evaluation)

    def begin(self) -> None:
        """Tell what was held back: the turn has come."""
        self.open = True
        for tell in self.held:
            tell()
        self.held.clear()

    def _tell(self, tell: Callable[..., None], *what: Any) -> None:
        if self.open:
            tell(*what)
        else:
            self.held.append(lambda: tell(*what))


def train_side_by_side(
    frame_of: Callable[[Watch], GDFrame], watch: Watch, jobs: Sequence[Job], needs: frozenset[str], cores: int
) -> Iterator[Trained]:
    """Train jobs, as many at once as there are cores, and yield their results in their order, each as soon as it is.

    Args:
        frame_of: returns how to train, with another watch.
        watch: is told of the trainings, one after the other.
        jobs: the jobs to train.
        needs: what to keep beside the trained weights.
        cores: how many may be used.
    """
    at_once = min(len(jobs), cores)
    turns = [InTurn(watch) for _ in jobs]
    results: dict[int, Trained] = {}
    told = 0
    waiting = list(enumerate(jobs))[::-1]
    turns[0].begin()
    with ThreadPoolExecutor(at_once, "training") as pool:
        going: dict[Future[Losses], tuple[int, _Going]] = {}

        def advance(number: int, training: _Going, losses: Losses | None) -> None:
            try:
                take = training.send(losses) if losses is not None else next(training)
                going[pool.submit(take)] = number, training
            except StopIteration as done:
                results[number] = done.value
                _pass_on(turns, number)

        while waiting or going:
            while waiting and len(going) < at_once:
                number, job = waiting.pop()
                advance(number, training_in_strides(frame_of(turns[number]), job, needs, cores // at_once), None)
            done, _ = wait(going, return_when=FIRST_COMPLETED)
            for future in done:
                number, training = going.pop(future)
                advance(number, training, future.result())
            while told in results:
                yield results.pop(told)
                told += 1


def _pass_on(turns: Sequence[InTurn], number: int) -> None:
    """Take note that a training is done, and let those tell before which all are done."""
    turns[number].done = True
    for before, turn in itertools.pairwise(turns):
        if not (before.done and before.open):
            return
        if not turn.open:
            turn.begin()
