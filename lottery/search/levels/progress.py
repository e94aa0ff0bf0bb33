"""Progress: bars for levels and steps, a table row for every finished level, metrics to disk as they happen."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from lottery.networks.objectives.metric import Measure
from lottery.results.columns import Shown
from lottery.results.levels import Level
from lottery.results.table import LevelTable
from lottery.runs.checkpoints import clear_checkpoints, read_checkpoint, write_checkpoint
from lottery.runs.directory import RunDirectory
from lottery.state.machine.bars import terminal_size
from pruning.errors import BadValue
from pruning.jobs import Evaluation, Job
from pruning.watch import Arrays, Silent

Write = Callable[[Shown], None]


class Display:
    """Progress bars and the table of levels, while a search runs.

    Args:
        bars: whether to draw progress bars on standard error.
        write: prints a part of the table of levels, or None for no table.
        note: prints a line about the search, before it; None where it belongs above the table or nowhere.
    """

    def __init__(self, bars: bool, write: Write | None, note: Callable[[str], None] | None = None) -> None:
        self._bars, self._write, self._note = bars, write, note
        self._levels: tqdm[Any] | None = None
        self._steps: tqdm[Any] | None = None
        self._table: LevelTable | None = None

    def introduce(self, text: str) -> None:
        """Show one line about the search that begins."""
        if self._note is not None:
            self._note(text)
        else:
            self._show(text)

    @contextmanager
    def searching(self, levels: int, metric: Measure, examples: int | None, prunable: int) -> Iterator[None]:
        """Show bars and the table's header while a search of `levels` levels runs."""
        self._table = LevelTable(metric.name, metric.is_fraction, examples, prunable)
        with self.training(levels):
            self._show(self._table.head())
            yield

    @contextmanager
    def training(self, levels: int) -> Iterator[None]:
        """Show bars while `levels` levels are trained."""
        if not self._bars:
            yield
            return
        options: dict[str, Any] = {"leave": False, **terminal_size()}
        with (
            tqdm(total=levels, desc="levels", unit="level", position=0, **options) as level_bar,
            tqdm(desc="steps", unit="step", position=1, **options) as step_bar,
        ):
            self._levels, self._steps = level_bar, step_bar
            yield

    def started(self, level: int, steps: int) -> None:
        """Begin a level of `steps` steps, counted over all replicates."""
        if self._steps is not None:
            self._steps.reset(total=steps)
            self._steps.set_description(f"level {level}")

    def stepped(self, steps: int) -> None:
        """Count steps."""
        if self._steps is not None:
            self._steps.update(steps)

    def finished(self, level: Level, dense: Level) -> None:
        """Show a finished level."""
        if self._table is not None:
            self._show(self._table.row(level, dense))
            self.passed()

    def won(self, level: Level, dense: Level) -> None:
        """Show once more, and marked, the level of the winning ticket: only the end of a search tells which it is."""
        if self._table is not None:
            self._show(self._table.winning(level, dense))

    def passed(self) -> None:
        """Count a level."""
        if self._levels is not None:
            self._levels.update()

    def _show(self, shown: Shown) -> None:
        if self._write is not None:
            with tqdm.external_write_mode(file=sys.stderr) if self._bars else contextlib.nullcontext():
                self._write(shown)


class StepCounter(Silent):
    """Shows the steps of trainings that are no levels of a search: controls, copies. Keeps nothing of them.

    Args:
        display: draws the bars.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self._reached: dict[int, int] = {}

    def expect(self, jobs: Sequence[Job], level: int) -> None:
        """Begin the bar of these jobs."""
        self._reached = {id(job): job.budget.start for job in jobs}
        self.display.started(level, sum(job.budget.stop - job.budget.start for job in jobs))

    def stepped(self, job: Job, step: int) -> None:
        """Pass the steps on that are new."""
        if id(job) in self._reached:
            self.display.stepped(step - self._reached[id(job)])
            self._reached[id(job)] = step


class Recorder:
    """Passes what the trainer and the engine report on to the display and the run directory."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._run: RunDirectory | None = None
        self._jobs: dict[int, Job] = {}
        self._reached: dict[int, int] = {}
        self._training: int | None = None

    def record_to(self, run: RunDirectory) -> None:
        """Append evaluations to this run from now on."""
        self._run = run

    def level_started(self, level: int, jobs: Mapping[int, Job]) -> None:
        """Remember which replicate each job is."""
        self._jobs = dict(jobs)
        self._reached = {seed: job.budget.start for seed, job in jobs.items()}
        self._training = level
        self._display.started(level, sum(job.budget.stop - job.budget.start for job in jobs.values()))

    def level_finished(self, level: Level, dense: Level) -> None:
        """Report the level, and remove the files that were kept while it was trained."""
        if self._run is not None and self._training == level.level:
            clear_checkpoints(self._run.path)
        self._display.finished(level, dense)

    def stepped(self, job: Job, step: int) -> None:
        """Pass the steps on that are new."""
        seed = self._replicate(job)
        self._display.stepped(step - self._reached[seed])
        self._reached[seed] = step

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """Append the evaluation to `metrics.jsonl`."""
        if self._run is not None:
            which = {"seed": self._replicate(job), "level": self._training}
            self._run.append_metrics({**which, **dataclasses.asdict(evaluation)})

    def _replicate(self, job: Job) -> int:
        """Return the seed of the replicate that a job is of, or a trainer's own copy of it.

        Raises:
            BadValue: a job that was not handed out, or a copy of one of several that share the seed of their data.
        """
        given = [seed for seed, each in self._jobs.items() if each is job]
        found = given or [seed for seed, each in self._jobs.items() if each.seed == job.seed]
        if len(found) != 1:
            raise BadValue("a trainer reports on the jobs that it was given, and this is a copy of none or of several")
        return found[0]

    def checkpoint(self, jobs: Sequence[Job], arrays: Arrays, facts: Sequence[Mapping[str, Any]]) -> None:
        """Keep it in the run directory."""
        if self._run is not None:
            write_checkpoint(self._run.path, jobs, arrays, facts)

    def restore(self, jobs: Sequence[Job]) -> tuple[Arrays, Sequence[Mapping[str, Any]]] | None:
        """Look for it in the run directory."""
        return read_checkpoint(self._run.path, jobs) if self._run is not None else None
