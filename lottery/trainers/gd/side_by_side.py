"""Several trainings at once, a core or more for each: compiled steps do not need Python while they run.

The bits of each are those that it has alone: nothing is shared, and its threads are no part of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from lottery.trainers.gd.alone import training_in_strides
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.learning import Losses
from pruning.hardware import usable_cores
from pruning.jobs import Job, Trained

_Going = Generator[Callable[[], Losses], Losses, Trained]


def train_side_by_side(frame: GDFrame, jobs: Sequence[Job], needs: frozenset[str]) -> list[Trained]:
    """Train jobs, as many at once as there are cores, and return their results in their order."""
    cores = usable_cores()
    at_once = min(len(jobs), cores)
    results: dict[int, Trained] = {}
    waiting = list(enumerate(jobs))[::-1]
    with ThreadPoolExecutor(at_once, "training") as pool:
        going: dict[Future[Losses], tuple[int, _Going]] = {}

        def advance(number: int, training: _Going, losses: Losses | None) -> None:
            try:
                take = training.send(losses) if losses is not None else next(training)
                going[pool.submit(take)] = number, training
            except StopIteration as done:
                results[number] = done.value

        while waiting or going:
            while waiting and len(going) < at_once:
                number, job = waiting.pop()
                advance(number, training_in_strides(frame, job, needs, cores // at_once), None)
            done, _ = wait(going, return_when=FIRST_COMPLETED)
            for future in done:
                number, training = going.pop(future)
                advance(number, training, future.result())
    return [results[number] for number in range(len(jobs))]
