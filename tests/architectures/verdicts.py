"""One architecture through all steps, and how each ended."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pruning.errors import LotteryError
from tests.architectures.entry import Architecture
from tests.architectures.plainly import Wrong
from tests.architectures.steps import NEED_A_TICKET, STEPS, Trial

RIGHT, REFUSED, CRASH, WRONG, NOT_REACHED = VERDICTS = ("right", "refused", "crash", "wrong", "not reached")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Verdict:
    """How one step ended.

    Attributes:
        step: which.
        verdict: `right`, `refused` (one line of the toolkit's own errors), `crash` (any other error), `wrong` (a result
            that an independent computation does not confirm), or `not reached` (there was no ticket to begin with).
        reason: the error in one line; for a crash with the place in our code.
        seconds: that it took.
        dense: masked tensors that the sparse forward left dense.
    """

    step: str
    verdict: str
    reason: str
    seconds: float
    dense: tuple[str, ...] = ()


def verdicts(architecture: Architecture, steps: Collection[str]) -> Iterator[Verdict]:
    """Yield the verdict on each step; one search by gradient descent serves all that need a ticket."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(architecture, Path(folder), architecture.model())
        for step, function in STEPS.items():
            if step not in steps and not (step == "gd" and set(NEED_A_TICKET) & set(steps)):
                continue
            if step in NEED_A_TICKET and not trial.tickets:
                yield Verdict(step, NOT_REACHED, "no ticket", 0.0)
                continue
            start = time.perf_counter()
            verdict, reason = judged(lambda function=function: function(trial))
            found = Verdict(
                step, verdict, reason, time.perf_counter() - start, tuple(trial.dense) if step == "sparse" else ()
            )
            if step in steps:
                yield found


def judged(run: Callable[[], None]) -> tuple[str, str]:
    """Run a step and return its verdict and reason."""
    try:
        run()
    except LotteryError as error:
        line = f"{type(error).__name__}: {error}"
        return (
            (CRASH, f"an error of several lines: {' | '.join(line.splitlines())}") if "\n" in line else (REFUSED, line)
        )
    except Wrong as error:
        return WRONG, str(error)
    except (Exception, SystemExit) as error:  # whatever a user would have to read
        said = (str(error).strip().splitlines() or [""])[0]
        return CRASH, f"{type(error).__name__}: {said[:300]} ({_place(error)})"
    return RIGHT, ""


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(_ROOT)) and "/tests/" not in f.filename]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
