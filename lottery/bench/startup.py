"""How long a search takes to its first step: in a process of its own, from its start, phase by phase.

    process starts ─▶ commands are known ─▶ PyTorch and data are there ─▶ model and data were tried ─▶ first step

The clock is a trainer like any other, gradient descent told to stop after one step: nothing of a search is replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lottery.trainers import TRAINERS, Ask, Setup, TrainerKind
from pruning.errors import RunError

if TYPE_CHECKING:
    from pruning.jobs import Evaluation, Job
    from pruning.watch import Arrays, Watch

_COMMANDS, _DATA, _TRIED, _STEP = "commands", "imports and data", "checks", "identity and first step"
PHASES: Sequence[str] = (_COMMANDS, _DATA, _TRIED, _STEP)
"""The phases in their order: the commands and their flags; what a search imports, and its data; the trainer's look at
model and data; what tells the experiment from others, and the first training step."""

_MARK = "seconds-to-first-step "
# Longer than any start-up; what takes longer has failed.
_PATIENCE = 600


@dataclass(frozen=True)
class _Clock:
    """A watch that notes the first step, and then ends the process as a user would.

    Attributes:
        watch: is told everything else.
        marks: when each phase before this one ended.
    """

    watch: Watch
    marks: Sequence[float]

    def stepped(self, job: Job, step: int) -> None:
        """Write down when each phase ended, and interrupt the search."""
        del job, step
        print(_MARK + json.dumps([*self.marks, time.monotonic()]), file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """Pass it on."""
        self.watch.evaluated(job, evaluation)

    def checkpoint(self, jobs: Sequence[Job], arrays: Arrays, facts: Sequence[Mapping[str, Any]]) -> None:
        """Pass it on."""
        self.watch.checkpoint(jobs, arrays, facts)

    def restore(self, jobs: Sequence[Job]) -> tuple[Arrays, Sequence[Mapping[str, Any]]] | None:
        """Return what the watch kept."""
        return self.watch.restore(jobs)


def _clocked() -> TrainerKind:
    """Return gradient descent that ends at its first step; this runs when a command line names it."""
    begun, descent = time.monotonic(), TRAINERS["gd"].value

    def setup(ask: Ask) -> Setup:
        marks = [begun, time.monotonic()]
        clock = _Clock(ask.watch, marks)
        ready = descent.setup(replace(ask, watch=clock))
        marks.append(time.monotonic())
        return ready

    return replace(descent, setup=setup)


CLOCKED = _clocked()
"""The trainer, as `lottery prune --trainer lottery.bench.startup:CLOCKED` names it."""


def start_up(data: str, model: str) -> dict[str, float]:
    """Return how many seconds each phase of `lottery prune` takes before its first step, in a child process.

    Args:
        data: a data set or a path, as `--data` takes it.
        model: a model, as `--model` takes it.

    Raises:
        RunError: the command failed before its first step; the message is its own.
    """
    words = ["prune", "--data", data, "--model", model, "--trainer", f"{__name__}:CLOCKED", "--epochs", "1", "--quiet"]
    with tempfile.TemporaryDirectory() as out:
        # Where Python looks for modules here, it does in the child.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        begun = time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-m", "lottery", *words, "--out", out],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
    marks = next((line for line in ran.stderr.splitlines() if line.startswith(_MARK)), None)
    if marks is None:
        said = ran.stderr.strip().splitlines()
        raise RunError(f"lottery prune took no step on {data!r}: {said[-1] if said else f'exit code {ran.returncode}'}")
    ends = json.loads(marks.removeprefix(_MARK))
    return {phase: end - start for phase, start, end in zip(PHASES, [begun, *ends], ends, strict=False)}


def seconds_to_first_step(data: str, model: str) -> float:
    """Return how many seconds `lottery prune` takes from the start of its process to the end of its first step.

    Args:
        data: a data set or a path, as `--data` takes it.
        model: a model, as `--model` takes it.

    Raises:
        RunError: the command failed before its first step; the message is its own.
    """
    return sum(start_up(data, model).values())
